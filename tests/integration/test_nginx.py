import ssl
import unittest
import urllib.error
import urllib.request
from typing import ClassVar

from caseexec import HTTPServiceMixin
from tests.integration.servers import path, require


def nginx(server):
    """A command that writes a configuration into its own directory, and serves it from there."""
    return f"""
cat > nginx.conf <<'END'
daemon off;
user root;  # Heeded only if root runs it: its workers could not enter the directory otherwise (mode 0700).
pid nginx.pid;
events {{}}
http {{
    access_log access.log;
    client_body_temp_path body;
    fastcgi_temp_path fastcgi;
    proxy_temp_path proxy;
    scgi_temp_path scgi;
    uwsgi_temp_path uwsgi;
    server {{ {server} }}
}}
END
exec nginx -p "$PWD/" -e stderr -c nginx.conf
"""


PAGES = "mkdir -p pages; echo 'It works' > pages/index.txt"
CERTIFICATE = """
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 \
    -subj /CN=localhost -addext subjectAltName=IP:{host} -keyout key.pem -out certificate.pem || exit
"""


@require("nginx", "nginx")
class NginxTests(HTTPServiceMixin, unittest.TestCase):
    service_shell = True
    service_cwd = "{tmp}"
    service_env: ClassVar = {"PATH": path()}
    service_path = "/health"
    service_command = PAGES + nginx("""
        listen {address};
        root pages;
        location = /health { return 204; }
        location = /agent { return 200 "$http_user_agent"; }
    """)

    def get(self, path, **headers):
        request = urllib.request.Request(self.service.url + path, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read().decode()

    def test_a_page_is_served(self):
        self.assertEqual(self.get("/index.txt"), "It works\n")

    def test_a_page_that_is_not_there_is_not_found(self):
        with self.assertRaises(urllib.error.HTTPError) as caught:
            self.get("/nowhere")
        caught.exception.close()
        self.assertEqual(caught.exception.code, 404)

    def test_its_own_variables_and_braces_reach_it(self):
        self.assertEqual(self.get("/agent", **{"User-Agent": "a test"}), "a test")

    def test_it_is_refused_while_it_is_stopped_and_reachable_again_afterwards(self):
        with self.service.stopped(), self.assertRaisesRegex(urllib.error.URLError, "refused"):
            self.get("/index.txt")
        self.assertEqual(self.get("/index.txt"), "It works\n")


@require("openssl", "openssl")
@require("nginx", "nginx")
class NginxOverTLSTests(HTTPServiceMixin, unittest.TestCase):
    service_shell = True
    service_cwd = "{tmp}"
    service_env: ClassVar = {"PATH": path()}
    service_scheme = "https"
    service_command = CERTIFICATE + nginx("""
        listen {address} ssl;
        ssl_certificate certificate.pem;
        ssl_certificate_key key.pem;
        location / { return 200 "$scheme"; }
    """)

    def test_it_answers_over_tls_to_who_trusts_its_certificate(self):
        trusting = ssl.create_default_context(cafile=f"{self.service.tmp}/certificate.pem")
        with urllib.request.urlopen(self.service.url, timeout=10, context=trusting) as answer:
            self.assertEqual(answer.read(), b"https")

    def test_who_does_not_trust_its_certificate_refuses_it(self):
        with self.assertRaisesRegex(urllib.error.URLError, "CERTIFICATE_VERIFY_FAILED"):
            urllib.request.urlopen(self.service.url, timeout=10)

import os
import shutil
import unittest
import urllib.request

from caseexec import HTTPServiceMixin


@unittest.skipUnless(shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"), "apt-get install nginx-light")
class ProxyTests(HTTPServiceMixin, unittest.TestCase):
    service_shell = True
    service_env = {"PATH": f"{os.environ['PATH']}:/usr/sbin"}
    service_command = """
        cat >{tmp}/nginx.conf <<'END'
        daemon off;
        pid {tmp}/nginx.pid;
        events { }
        http {
            access_log off;
            client_body_temp_path {tmp}/body;
            proxy_temp_path {tmp}/proxy;
            fastcgi_temp_path {tmp}/fastcgi;
            uwsgi_temp_path {tmp}/uwsgi;
            scgi_temp_path {tmp}/scgi;
            server {
                listen {address};
                location / { return 200 "hello from nginx"; }
            }
        }
        END
        exec nginx -e stderr -p {tmp} -c {tmp}/nginx.conf
    """

    def test_it_answers(self):
        with urllib.request.urlopen(self.service.url) as answer:
            self.assertEqual(answer.read(), b"hello from nginx")


if __name__ == "__main__":
    unittest.main()

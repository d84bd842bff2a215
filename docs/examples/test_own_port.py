import unittest
import urllib.request

from caseexec import HTTPService, ServicesMixin


class OwnPortTests(ServicesMixin, unittest.TestCase):
    # Port 0: the server asks the system for one, and writes "Serving HTTP on 127.0.0.1 port 43219 ...".
    files = HTTPService(
        "{python} -u -m http.server 0 --bind {host} --directory {tmp}",
        port_pattern=r"^Serving HTTP on \S+ port (\d+)",
    )

    def test_it_is_found(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.files.port}/") as answer:
            self.assertEqual(answer.status, 200)


if __name__ == "__main__":
    unittest.main()

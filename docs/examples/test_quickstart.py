import unittest
import urllib.request

from caseexec import HTTPServiceMixin


class FileServerTests(HTTPServiceMixin, unittest.TestCase):
    service_command = "{python} -m http.server {port} --bind {host} --directory {tmp}"

    def test_an_empty_directory_is_listed(self):
        with urllib.request.urlopen(self.service.url) as answer:
            self.assertIn(b"Directory listing", answer.read())


if __name__ == "__main__":
    unittest.main()

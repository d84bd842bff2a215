import socket
import unittest
import urllib.error
import urllib.request

from caseexec import HTTPService, ServicesMixin


class ClientTests(ServicesMixin, unittest.TestCase):
    files = HTTPService("{python} -u -m http.server {port} --bind {host} --directory {tmp}")

    def get(self, path="/", timeout=10):
        with urllib.request.urlopen(self.files.url + path, timeout=timeout) as answer:
            return answer.status

    def test_while_the_server_is_down(self):
        with self.files.stopped(), self.assertRaises(urllib.error.URLError):
            self.get()
        self.assertEqual(self.get(), 200)

    def test_while_the_server_hangs(self):
        with self.files.paused(), self.assertRaises(TimeoutError):
            self.get(timeout=0.3)
        self.assertEqual(self.get(), 200)

    def test_when_the_server_was_restarted(self):
        before = self.files.port
        self.files.restart()
        self.assertEqual((self.files.port, self.get()), (before, 200))

    def test_when_the_server_was_killed(self):
        self.files.kill()
        with self.assertRaises(OSError):
            socket.create_connection((self.files.host, self.files.port))

    def test_what_the_server_writes(self):
        mark = self.files.output_mark()
        self.get("/?page=7")
        line = self.files.wait_for_output(r"GET /\?page=(\d+)", timeout=5, since=mark)
        self.assertEqual(line[1], "7")
        self.assertIn("200", self.files.output_since(mark))


if __name__ == "__main__":
    unittest.main()

import socket
import unittest

from caseexec import TCPExecutor, free_port

SERVER = "import http.server, sys; http.server.test(bind='127.0.0.1', port=int(sys.argv[1]))"


class ExecutorTests(unittest.TestCase):
    def test_a_client_survives_a_restart(self):
        port = free_port()
        with TCPExecutor(["python3", "-c", SERVER, str(port)], "127.0.0.1", port) as server:
            socket.create_connection((server.host, server.port)).close()
            with server.stopped(), self.assertRaises(ConnectionRefusedError):
                socket.create_connection((server.host, server.port))
            socket.create_connection((server.host, server.port)).close()


if __name__ == "__main__":
    unittest.main()

"""Servers that go to the background and overwrite their environment to set their titles."""

import os
import unittest

from caseexec import PidExecutor, TCPExecutor, free_port
from caseexec.ports import release
from tests.helpers.leaks import NothingRemains, alive, soon
from tests.integration.servers import path, require

NGINX = """
pid {tmp}/nginx.pid;
error_log {tmp}/error.log;
user root;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {tmp}; proxy_temp_path {tmp}; fastcgi_temp_path {tmp}; uwsgi_temp_path {tmp};
    scgi_temp_path {tmp};
    server {{ listen 127.0.0.1:{port}; }}
}}
"""


class DaemonCase(NothingRemains):
    def setUp(self) -> None:
        super().setUp()
        self.port = free_port()
        self.addCleanup(release, self.port)

    def assert_it_goes(self, executor, pid_file: str) -> None:
        """Start it, and stop it: the daemon is gone."""
        with executor:
            self.assertEqual(executor.process.wait(), 0)
            # Who is ready by its port need not have written its pid yet.
            self.assertTrue(soon(lambda: os.path.exists(pid_file) and os.path.getsize(pid_file)))
            with open(pid_file) as file:
                daemon = int(file.read())
            self.assertTrue(alive(daemon) and executor.running())
            self.assertIn(daemon, executor.living())
        self.assertFalse(alive(daemon))


@require("redis-server", "redis-server")
class RedisDaemonTests(DaemonCase):
    def test_it_goes_whatever_the_moment(self) -> None:
        pid_file = self.path("redis.pid")
        command = ["redis-server", "--daemonize", "yes", "--port", str(self.port), "--save", "", "--pidfile", pid_file,
                   "--bind", "127.0.0.1", "--dir", self.tmp]  # fmt: skip
        for _ in range(5):
            self.assert_it_goes(PidExecutor(command, pid_file), pid_file)
            self.assert_it_goes(TCPExecutor(command, "127.0.0.1", self.port), pid_file)


@require("nginx", "nginx-light")
class NginxDaemonTests(DaemonCase):
    def test_it_goes_whatever_the_moment(self) -> None:
        with open(self.path("nginx.conf"), "w") as file:
            file.write(NGINX.format(tmp=self.tmp, port=self.port))
        command = ["nginx", "-c", self.path("nginx.conf"), "-e", self.path("error.log")]
        for _ in range(5):
            executor = TCPExecutor(
                command, "127.0.0.1", self.port, envvars={"PATH": path(), "TZ": os.environ.get("TZ", "")}
            )
            self.assert_it_goes(executor, self.path("nginx.pid"))


if __name__ == "__main__":
    unittest.main()

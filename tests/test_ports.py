import random
import socket
import sys
import threading
import unittest
from unittest import mock

from caseexec import ports


def listening(host: str = "127.0.0.1", family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    sock = socket.socket(family)
    sock.bind((host, 0))
    sock.listen()
    return sock


class LeaseTests(unittest.TestCase):
    def lease(self) -> int:
        port = ports.free_port()
        self.addCleanup(ports.release, port)
        return port

    def test_a_leased_port_is_free_and_below_those_of_outgoing_connections(self) -> None:
        port = self.lease()
        self.assertTrue(ports.is_free("127.0.0.1", port))
        self.assertTrue(10_000 <= port < ports._lowest_ephemeral())

    def test_no_port_is_leased_twice_by_many_threads(self) -> None:
        leased: list[int] = []
        threads = [threading.Thread(target=lambda: leased.extend(self.lease() for _ in range(50))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(set(leased)), 400)

    def test_seeding_the_random_module_does_not_repeat_leases(self) -> None:
        random.seed(1)
        first = self.lease()
        ports.release(first)
        random.seed(1)
        second, third = self.lease(), self.lease()
        self.assertNotEqual((first, first), (second, third))

    def test_a_port_in_use_is_not_leased(self) -> None:
        with listening() as sock:
            port = sock.getsockname()[1]
            free = self.lease()
            with mock.patch.object(ports, "_candidates", return_value=iter([port, free + 1, free])):
                ports.release(free)
                self.assertIn(ports.free_port(), (free, free + 1))
        ports.release(free + 1)

    def test_where_every_port_is_for_outgoing_connections_the_system_chooses(self) -> None:
        with mock.patch.object(ports, "_lowest_ephemeral", return_value=1024):
            port = ports.free_port()
        self.addCleanup(ports.release, port)
        self.assertTrue(ports.is_free("127.0.0.1", port))

    def test_a_port_that_remembers_a_connection_is_free_for_most_servers_and_not_leased(self) -> None:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", 0))
            sock.listen()
            port = sock.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port)) as client:
                sock.accept()[0].close()  # Who closes first, remembers.
                client.recv(1)
        self.assertTrue(ports.is_free("127.0.0.1", port))
        self.assertFalse(ports.is_free("127.0.0.1", port, remembering=False))

    def test_no_free_port_is_an_error(self) -> None:
        with mock.patch.object(ports, "_candidates", return_value=iter([])):
            with self.assertRaisesRegex(OSError, r"no free port on 127\.0\.0\.1"):
                ports.free_port()

    def test_a_host_of_another_machine_is_an_error(self) -> None:
        with self.assertRaises(OSError):
            ports.is_free("192.0.2.1", 12345)


class ListenersTests(unittest.TestCase):
    def test_a_free_port_has_no_listener(self) -> None:
        self.assertEqual(ports.listeners("127.0.0.1", ports.free_port()), [])

    @unittest.skipUnless(sys.platform == "linux", "sock_diag is Linux's")
    def test_the_listener_is_named_by_its_inode(self) -> None:
        import os

        with listening() as sock:
            (found,) = ports.listeners("127.0.0.1", sock.getsockname()[1])
            self.assertEqual(found.inode, os.fstat(sock.fileno()).st_ino)
            self.assertEqual(found.uid, os.getuid())

    def test_psutil_tells_the_same(self) -> None:
        import os

        with listening() as sock, mock.patch.object(ports.sys, "platform", "other"):
            (found,) = ports.listeners("127.0.0.1", sock.getsockname()[1])
            self.assertEqual((found.host, found.pid), ("127.0.0.1", os.getpid()))

    def test_one_on_every_address_counts_when_nobody_is_nearer(self) -> None:
        with listening("0.0.0.0") as sock:
            self.assertEqual([found.host for found in ports.listeners("127.0.0.1", sock.getsockname()[1])], ["0.0.0.0"])

    def test_one_on_another_address_does_not_count(self) -> None:
        with listening("127.0.0.2") as sock:
            self.assertEqual(ports.listeners("127.0.0.1", sock.getsockname()[1]), [])

    @unittest.skipUnless(socket.has_dualstack_ipv6(), "no IPv6 here")
    def test_one_on_every_ipv6_address_takes_ipv4_connections_too(self) -> None:
        with listening("::", socket.AF_INET6) as sock:
            self.assertEqual([found.host for found in ports.listeners("127.0.0.1", sock.getsockname()[1])], ["::"])

    def test_a_name_is_looked_up(self) -> None:
        with listening() as sock:
            self.assertEqual(len(ports.listeners("localhost", sock.getsockname()[1])), 1)

    @unittest.skipUnless(sys.platform == "linux", "sock_diag is Linux's")
    def test_where_the_kernel_does_not_tell_nobody_is_seen(self) -> None:
        with listening() as sock, mock.patch.object(ports, "_netlink", side_effect=OSError):
            self.assertEqual(ports.listeners("127.0.0.1", sock.getsockname()[1]), [])

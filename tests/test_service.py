import os
import pathlib
import re
import sys
import unittest

from caseexec import errors, ports
from caseexec.executors import (
    CommandExecutor,
    Declared,
    HTTPExecutor,
    OutputExecutor,
    PidExecutor,
    TCPExecutor,
    UnixSocketExecutor,
)
from caseexec.service import (
    CommandService,
    HTTPService,
    OutputService,
    PidService,
    Service,
    TCPService,
    UnixSocketService,
)


class DeclarationTests(unittest.TestCase):
    def test_it_cannot_be_changed(self) -> None:
        service = TCPService("run {port}")
        with self.assertRaises(AttributeError):
            service.port = 1

    def test_equal_declarations_are_equal(self) -> None:
        self.assertEqual(TCPService("run {port}"), TCPService("run {port}"))
        self.assertNotEqual(TCPService("run {port}"), TCPService("run {port}", host="::1"))

    def test_what_cannot_be_right_is_refused_and_named(self) -> None:
        for make, where, problem in (
            (lambda: TCPService(), "command", "None is no command"),
            (lambda: TCPService(""), "command", "it is empty"),
            (lambda: TCPService("  "), "command", "it is empty"),
            (lambda: TCPService([]), "command", "is no command"),
            (lambda: TCPService("a 'b {port}"), "command", "cannot be split into arguments"),
            (lambda: TCPService(["a", None]), "command", "must hold strings only"),
            (lambda: TCPService(["a", "{port}"], shell=True), "command", "a shell runs a string"),
            (lambda: TCPService("a", port=None), "port", "it is None.*UnixSocketServiceMixin"),
            (lambda: TCPService("a", port=-1), "port", "-1 is no port: it must be a number from 1 to 65535, or 0"),
            (lambda: TCPService("a", port=65536), "port", "65536 is no port"),
            (lambda: TCPService("a", port="80"), "port", "'80' is no port"),
            (lambda: TCPService("a", port=True), "port", "True is no port"),
            (lambda: TCPService("a"), "port", "nothing tells the command which one: write {port} into"),
            (lambda: OutputService("a {port}", port=None, banner="x"), "port", "it is None"),
            (lambda: TCPService("a {port}", start_timeout=0), "start_timeout", "0 is no number of seconds above 0"),
            (lambda: TCPService("a {port}", stop_timeout="1"), "stop_timeout", "'1' is no number of seconds"),
            (
                lambda: TCPService("a {port}", listener="an"),
                "listener",
                "it is 'an', but can only be .*did you mean any?",
            ),
            (lambda: TCPService("a {port}", env={"A": 1}), "env", "env: .'A'. is no string but 1: write '1'"),
            (lambda: TCPService("a {port}", probe=3), "probe", "neither a function nor a probe"),
            (lambda: TCPService("a {port}", stop_command=""), "stop_command", "it is empty"),
            (lambda: TCPService("a {prot}", port=1), "command", "no placeholder {prot} .*did you mean {port}."),
            (
                lambda: TCPService("a {port}", env={"A": "{zzz}"}),
                "env",
                "no placeholder {zzz} .*for the braces themselves write {{zzz}}",
            ),
            (lambda: TCPService("a {prt}"), "command", "no placeholder {prt} .*did you mean {port}."),
            (lambda: TCPService("a {port}", env=["A=1"]), "env", "a list is no mapping of names to values"),
            (lambda: TCPService("a {port}", stop_signal="SIGINT"), "stop_signal", "'SIGINT' is no signal"),
            (lambda: TCPService("a {port}", stop_signal=None), "stop_signal", "None is no signal"),
            (lambda: TCPService(b"a {port}"), "command", "b'a {port}' is no command"),
            (lambda: TCPService("a {port}", host=5), "host", "5 is no address"),
            (lambda: TCPService("a {port}", cwd=b"x"), "cwd", "b'x' is no path"),
            (lambda: TCPService("a {port}", after=[[]]), "after", r"\[\] is neither a service nor the name of one"),
            (lambda: OutputService("a", banner=5), "banner", "5 is no regular expression for text"),
            (lambda: OutputService("a", banner=re.compile(b"x")), "banner", "no regular expression for text"),
            (lambda: UnixSocketService("a", socket=5), "socket", "5 is no path"),
            (lambda: TCPService(["a", pathlib.Path("{tpm}"), "{port}"]), "command", "no placeholder {tpm}"),
            (lambda: TCPService("a {port} {ünï}"), "command", "no placeholder {ünï}"),
            (lambda: TCPService("a {port}", kill_signal=99), "kill_signal", "99 is no signal"),
            (lambda: TCPService("a {port}", expected_returncode="3"), "expected_returncode", "'3' is no number"),
            (lambda: TCPService("a {port}", daemonizes="yes"), "daemonizes", "'yes' is neither True nor False"),
            (lambda: TCPService("a {port}", daemonizes=None), "daemonizes", "None is neither True nor False"),
            (lambda: HTTPService("a {port}", headers={"X": 1}), "headers", "'X'. is no string but 1"),
            (lambda: HTTPService("a {port}", method="get"), "method", "write it in capitals"),
            (lambda: HTTPService("a {port}", status="2xx"), "status", "matches no status code"),
            (lambda: TCPService("a {port}", host="192.0.2.1").lease(), "host", "no port can be leased on '192.0.2.1'"),
            (lambda: HTTPService("a {port}", path="x"), "path", "must begin with a slash"),
            (lambda: HTTPService("a {port}", scheme="ftp"), "scheme", "neither http nor https"),
            (lambda: HTTPService("a {port}", status="("), "status", "no regular expression"),
            (lambda: OutputService("a"), "banner", "it is not set: give a regular expression"),
            (lambda: OutputService("a", banner="("), "banner", "no regular expression"),
            (lambda: UnixSocketService("a"), "socket", "it is not set: give the path of the Unix socket"),
            (lambda: PidService("a"), "pid_file", "it is not set: give the path of the pid file"),
            (lambda: CommandService("a"), "check", "it is not set: give the command that succeeds"),
        ):
            with self.subTest(problem), self.assertRaisesRegex(errors.DeclarationError, problem) as caught:
                make()
            self.assertTrue(caught.exception.where.endswith(f"Service.{where}"), caught.exception.where)

    def test_the_base_of_all_kinds_is_no_kind(self) -> None:
        with self.assertRaises(NotImplementedError):
            Service("a").executor(Declared(test_class="x"))


class ExecutorTests(unittest.TestCase):
    def make(self, service: Service, port: int | None = 5000):
        return service.executor(Declared(test_class="a.A", port=port, tmp="/tmp/a b"))

    def test_placeholders_are_filled_everywhere(self) -> None:
        executor = self.make(
            HTTPService(
                "{python} run --bind {address} --dir {tmp}",
                env={"URL": "{url}"},
                cwd="{tmp}/x",
                stop_command="stop {port}",
                path="/{port}/health",
                headers={"X-Tmp": "{tmp}"},
            )
        )
        self.assertIsInstance(executor, HTTPExecutor)
        self.assertEqual(
            executor.command_parts, [sys.executable, "run", "--bind", "127.0.0.1:5000", "--dir", "/tmp/a b"]
        )
        self.assertEqual(executor.envvars["URL"], "http://127.0.0.1:5000")
        self.assertEqual(executor._cwd, "/tmp/a b/x")
        self.assertEqual(executor._plan.command, ["stop", "5000"])
        self.assertEqual(executor._own_probe().url, "http://127.0.0.1:5000/5000/health")
        self.assertEqual(executor.headers, {"X-Tmp": "/tmp/a b"})
        self.assertEqual((executor.url, executor.tmp), ("http://127.0.0.1:5000", "/tmp/a b"))

    def test_the_executor_knows_whether_it_daemonizes(self) -> None:
        for daemonizes in (True, False):
            self.assertIs(self.make(TCPService("a {port}", daemonizes=daemonizes))._daemonizes, daemonizes)
        self.assertFalse(TCPService("a {port}").daemonizes)

    def test_an_ipv6_host_is_in_brackets_in_address_and_url(self) -> None:
        executor = self.make(HTTPService("run {host} {address} {url}", host="::1", scheme="https"))
        self.assertEqual(executor.command_parts, ["run", "::1", "[::1]:5000", "https://[::1]:5000"])
        self.assertEqual((executor.host, executor.address), ("::1", "[::1]:5000"))

    def test_a_value_in_a_banner_is_taken_literally(self) -> None:
        executor = self.make(OutputService("run {port}", banner=r"on {address}\d?"))
        self.assertIsInstance(executor, OutputExecutor)
        self.assertEqual(executor._banner.pattern.pattern, re.escape("127.0.0.1:5000").join(("on ", r"\d?")))

    def test_each_kind_makes_its_executor(self) -> None:
        for service, kind in (
            (TCPService("a {port}"), TCPExecutor),
            (UnixSocketService("a", socket="{tmp}/s"), UnixSocketExecutor),
            (PidService("a", pid_file="{tmp}/p"), PidExecutor),
            (CommandService("a {port}", check="check {port}"), CommandExecutor),
        ):
            executor = self.make(service)
            self.assertIsInstance(executor, kind)
            self.assertTrue(executor._facts().declared)
        self.assertEqual(self.make(UnixSocketService("a", socket="{tmp}/s")).address, "/tmp/a b/s")

    def test_a_port_is_leased_where_it_is_used_only(self) -> None:
        self.assertIsNone(PidService("a", pid_file="p").lease())
        self.assertEqual(TCPService("a", port=80).lease(), 80)
        port = CommandService("a {address}", check="c").lease()
        self.assertGreater(port, 1024)
        ports.release(port)

    def test_a_path_is_a_directory_too(self) -> None:
        import pathlib

        self.assertEqual(self.make(TCPService("a {port}", cwd=pathlib.Path("/x")))._cwd, f"{os.sep}x")

import os
import re
import signal
import textwrap
import unittest

from caseexec import DeclarationError, TCPService
from caseexec.pytest_plugin import service_fixture
from tests.helpers.classes import masked
from tests.helpers.leaks import alive, soon
from tests.helpers.runs import RunCase

# What each module of a suite begins with. Every service that is started notes its process in the file "pids".
HEAD = """
import asyncio, os, signal, socket, unittest
import pytest
from caseexec import CommandService, OneShot, OutputService, ServicesMixin, TCPService
from caseexec.processes import is_stopped
from caseexec.pytest_plugin import service_fixture
from tests.helpers.classes import SERVER
from tests.helpers.leaks import alive, soon

def noting(executor):
    with open("pids", "a") as file:
        print(executor.pid, file=file)

def crash(executor):
    os.kill(executor.pid, 9)
    assert soon(executor.has_died)

DECLARED = TCPService(SERVER, reset=noting)

def when_stopped(action):
    command = f"trap '{action}' TERM; echo ready; while :; do sleep 0.01; done"
    return OutputService(["sh", "-c", command], banner="ready", scope="session", reset=noting)
"""


class PluginCase(RunCase):
    """Runs pytest with the plugin, and nothing else that is installed, in an empty directory."""

    def setUp(self) -> None:
        super().setUp()
        self.environment.update(PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", COLUMNS="200")
        del self.environment["PYTHONDEVMODE"]  # It takes a third of the time, and there are many runs.

    def suite(self, **modules: str) -> None:
        for name, source in modules.items():
            self.write(f"{name}.py", HEAD + textwrap.dedent(source))

    def arguments(self, *options: str, plugin: str = "caseexec.pytest_plugin") -> list[str]:
        return ["-m", "pytest", "-p", "no:cacheprovider", "-p", plugin, *options]

    def run_pytest(self, *options: str, code: int = 0, plugin: str = "caseexec.pytest_plugin", **outcomes: int) -> str:
        """Run the suite, which must have these outcomes and leave nothing; what it wrote."""
        found, output = self.run_python(*self.arguments(*options, plugin=plugin))
        self.assertEqual(found, code, output)
        last = output.rstrip().splitlines()[-1]
        for outcome, number in outcomes.items():
            self.assertRegex(last, rf"\b{number} {outcome}", output)
        self.assert_all_ended(output)
        return output

    def assert_all_ended(self, output: str) -> None:
        self.assertEqual([pid for pid in self.pids() if alive(pid)], [], output)
        left = [name for name in os.listdir(self.run_tmp) if not name.startswith("pytest-of-")]
        self.assertEqual([name for name in left if not name.endswith(".log")], [], output)

    def pids(self) -> list[int]:
        """The services that have noted themselves, as often as they did."""
        if not os.path.exists(self.path("pids")):
            return []
        with open(self.path("pids")) as file:
            return [int(line) for line in file]


class InertTests(PluginCase):
    def test_a_suite_without_services_is_not_told_of_it_and_loads_nothing(self) -> None:
        self.write("test_it.py", """
            import sys
            import pytest

            def test_it():
                pytest.importorskip("caseexec").__version__

            def test_nothing_of_caseexec_was_loaded():
                assert [name for name in sys.modules if name.startswith("caseexec.")] == EXPECTED
                assert "psutil" not in sys.modules
        """)  # fmt: skip
        outputs = []
        for plugin, loaded in (("caseexec.pytest_plugin", "['caseexec.pytest_plugin']"), ("no:caseexec", "[]")):
            with open(self.path("conftest.py"), "w") as file:
                file.write(f"import builtins; builtins.EXPECTED = {loaded}")
            output = self.run_pytest(plugin=plugin, passed=2)
            outputs.append(re.sub(r"\d+\.\d+s", "", output))
        self.assertEqual(*outputs)

    def test_it_is_an_entry_point(self) -> None:
        from importlib.metadata import distribution

        (found,) = [point for point in distribution("caseexec").entry_points if point.group == "pytest11"]
        self.assertEqual((found.name, found.load().__name__), ("caseexec", "caseexec.pytest_plugin"))

    def test_importing_it_loads_nothing_else(self) -> None:
        program = (
            "import pytest, sys; before = {*sys.modules}; import caseexec.pytest_plugin; print({*sys.modules} - before)"
        )
        output = self.run_python("-c", program)[1]
        self.assertEqual(sorted(re.findall(r"[\w.]+", output)), ["caseexec", "caseexec.pytest_plugin"])


class SharedTests(PluginCase):
    """Services that classes share."""

    SUITE = """
        class First(ServicesMixin, unittest.TestCase):
            server = DECLARED.replace(scope="{scope}")

            def test_it(self):
                socket.create_connection((self.server.host, self.server.port)).close()

        class Last(First):
            def setUp(self):
                if os.environ.get("SKIPS"):
                    self.skipTest("")
    """
    OVER = """
        def test_those_of_other_modules_are_over():
            with open("pids") as file:
                (pid,) = set(file)
            assert not alive(int(pid))
    """

    def test_those_of_a_module_end_with_its_last_test(self) -> None:
        self.suite(test_a=self.SUITE.format(scope="module"), test_b=self.OVER)
        for options, skips, passed in (((), "", 3), (("-k", "not Last"), "", 2), ((), "1", 2)):
            with self.subTest(options=options, skips=skips):
                self.environment["SKIPS"] = skips
                self.run_pytest("-q", *options, passed=passed)
                os.remove(self.path("pids"))

    def test_those_of_the_session_end_with_the_last_test_and_an_error_of_that_is_reported(self) -> None:
        suite = """
            class Last(ServicesMixin, unittest.TestCase):
                server = when_stopped("echo oh no; exit 3")
                def test_it(self): pass
                def test_that(self): pass
        """
        self.suite(test_a=self.SUITE.format(scope="session"), test_b=suite)
        output = self.run_pytest(code=1, passed=4, error=1)
        self.assertIn("ERROR at teardown of Last.test_that", output)
        self.assertIn("oh no", output)
        self.assertRegex(
            output, r"\nERROR test_b.py::Last::test_that - caseexec.\S+ProcessFinishedWithError: .*status 3"
        )
        self.assertEqual(len(set(self.pids())), 2)
        os.remove(self.path("pids"))
        output = self.run_pytest("-x", "-k", "test_that", code=1, passed=1, error=1)

    def test_they_end_before_pytest_removes_its_directories(self) -> None:
        self.suite(test_a="""
            @pytest.fixture(scope="session")
            def directory(tmp_path_factory):
                return tmp_path_factory.mktemp("watched")

            class It(ServicesMixin, unittest.TestCase):
                @pytest.fixture(autouse=True)
                def tell(self, directory):
                    with open("where", "w") as file:
                        file.write(str(directory))

                server = when_stopped("ls -d $(cat where) >found; exit 0")
                def test_it(self): pass
        """)  # fmt: skip
        self.run_pytest("-o", "tmp_path_retention_policy=failed", passed=1)
        with open(self.path("found")) as file:
            self.assertIn("watched", file.read())

    def test_an_error_of_their_end_after_an_interrupt_is_told_too(self) -> None:
        self.suite(test_a="""
            class It(ServicesMixin, unittest.TestCase):
                server = when_stopped("exit 3")
                def test_it(self):
                    raise KeyboardInterrupt
        """)  # fmt: skip
        self.assertRegex(self.run_pytest(code=2), "RuntimeWarning: ProcessFinishedWithError: .*exited with status 3")

    def test_a_session_within_a_test_leaves_those_of_the_outer_one(self) -> None:
        self.suite(
            test_outer="""
                pytest_plugins = "pytester"
                outer = service_fixture(DECLARED, scope="session")
                pytestmark = pytest.mark.usefixtures("outer")

                def test_within(pytester, outer):
                    with open(os.path.join(os.path.dirname(__file__), "inner.py")) as file:
                        pytester.makepyfile(test_a=file.read(), test_b="def test_it(): pass")
                    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=3)
                    assert outer.running()
            """,
            inner=self.SUITE.format(scope="session"),
        )
        self.run_pytest("test_outer.py", passed=1)


class FixturesTests(PluginCase):
    def test_each_lives_as_long_as_its_scope_says(self) -> None:
        self.suite(
            conftest="""
                for scope in ("session", "package", "module", "class", "function"):
                    globals()[scope] = service_fixture(DECLARED, scope=scope, name=f"of_{scope}")
            """,
            **dict.fromkeys(("test_a", "test_b"), """
                seen = []

                class TestIt:
                    @pytest.mark.parametrize("number", [1, 2])
                    def test_it(self, number, of_session, of_package, of_module, of_class, of_function):
                        running = [of_session, of_package, of_module, of_class, of_function]
                        seen.append([executor.pid for executor in running])
                        assert all(executor.running() for executor in running)

                class TestThat(TestIt):
                    pass

                def test_all():
                    assert [len(set(pids)) for pids in zip(*seen)] == [1, 1, 1, 2, 4]
                    with open("pids") as file:
                        pids = set(map(int, file))
                    assert [pid for pid in seen[0] if alive(pid)] == seen[0][:3]
                    assert len([pid for pid in pids if alive(pid)]) == 3
            """),
        )  # fmt: skip
        self.run_pytest(passed=10)
        self.assertEqual(len(self.pids()), 8 * 5, "each is reset before each test, once")
        self.assertEqual(len(set(self.pids())), 1 + 1 + 2 + 4 + 8)

    def test_an_equal_one_of_a_class_and_one_of_another_fixture_are_shared(self) -> None:
        self.suite(test_it="""
            SHARED = DECLARED.replace(scope="session")
            one, two = service_fixture(SHARED), service_fixture(DECLARED, scope="session")
            own = service_fixture(DECLARED)

            class A(ServicesMixin, unittest.TestCase):
                server = SHARED
                def test_it(self):
                    A.pid = self.server.pid

            def test_it(one, two, own):
                assert one is two and one.pid == A.pid != own.pid
                with open("pids") as file:
                    assert file.read().split().count(str(one.pid)) == 2, "A.test_it, and once for this test"

            @pytest.mark.usefixtures("one")
            class B(A):
                def test_it(self):
                    assert self.server.pid == A.pid
        """)  # fmt: skip
        self.run_pytest(passed=3)

    def test_that_of_a_module_does_not_end_with_the_last_class_that_shares_it(self) -> None:
        self.suite(test_it="""
            SHARED = DECLARED.replace(scope="module")
            server = service_fixture(SHARED)

            def test_first(server):
                global pid
                pid = server.pid

            class It(ServicesMixin, unittest.TestCase):
                server = SHARED
                def test_it(self):
                    assert self.server.pid == pid

            def test_last(server):
                assert server.running() and server.pid == pid
        """)  # fmt: skip
        self.run_pytest(passed=3)

    def test_they_name_each_other(self) -> None:
        self.suite(
            conftest='server = service_fixture(DECLARED, scope="session")',
            test_it="""
                asks = service_fixture(CommandService("sleep 300", check="true", env={"AT": "{server.address}"}))
                waits = service_fixture(OneShot("true", after=("asks",)), scope="function")

                @pytest.fixture(scope="session")
                def server(server):
                    return server

                def test_it(asks):
                    with open(f"/proc/{asks.pid}/environ") as file:
                        assert "AT=127.0.0.1:" in file.read()

                def test_that(waits, server):
                    with open("pids") as file:
                        assert file.read().split() == 2 * [str(server.pid)], "also of one that is only needed"
            """,
        )
        self.run_pytest("--setup-show", passed=2)

    def test_what_they_name_and_is_not_there_is_told(self) -> None:
        self.suite(test_it="""
            redis = service_fixture(DECLARED)
            misspelt = service_fixture(TCPService("x {port} {redys.port}"))
            other = service_fixture(TCPService("x {port}", after=("tmp_path",)))
            fact = service_fixture(TCPService("x {port} {redis.socket}"))
            one = service_fixture(TCPService("x {port}", after=("two",)), scope="session")
            two = service_fixture(TCPService("x {port}", after=("one",)), scope="session")

            def test_misspelt(misspelt): pass
            def test_other(other): pass
            def test_fact(fact): pass
            def test_one(one): pass
        """)  # fmt: skip
        output = self.run_pytest(code=1, errors=4)
        for error in (
            "test_it.misspelt.command: it names 'redys', but there is no such service fixture (there are fact, misspelt, "
            "one, other, redis, two); did you mean redis?",
            "test_it.other.after: it names 'tmp_path', but that fixture was not made by service_fixture()",
            "test_it.fact.command: the placeholder {redis.socket} can't be filled: a TCPService has no 'socket' to tell",
            "test_it.one: its services wait for each other: one, which needs two, which needs one",
        ):
            self.assertIn(error, output)
        self.assertNotIn("def ", output, "a traceback")

    def test_it_is_told_of_once_that_one_has_died_or_could_not_be_started(self) -> None:
        self.suite(test_it="""
            server = service_fixture(DECLARED, scope="session")
            again = service_fixture(DECLARED.replace(restart="on_crash"), scope="module")
            broken = service_fixture(TCPService("sh -c 'echo no {port}; exit 3'"), scope="function")

            def test_1(server, again): crash(server); crash(again)
            def test_2(server): pass
            def test_3(server): pass
            def test_4(again):
                with open("pids") as file:
                    assert again.running() and str(again.pid) in file.read().split(), "reset"
            def test_5(broken): pass
            def test_6(broken): pass
        """)  # fmt: skip
        output = self.run_pytest(code=1, passed=2, errors=4)
        summary = output.partition("short test summary")[2]
        self.assertIn("ServiceDied: server was killed by SIGKILL during test_it.py::test_1", summary)
        unavailable = (
            "ServiceUnavailable: server was killed by SIGKILL during test_it.py::test_1; the error of test_it.p"
        )
        self.assertIn(unavailable, summary)
        self.assertIn("ProcessExitedWithError: test_it.broken exited with status 3", summary)
        unavailable = "ServiceUnavailable: broken could not be started (ProcessExitedWithError); the error of test_it.p"
        self.assertIn(unavailable, summary)
        self.assertEqual(output.count("    no "), 1, "its output")
        self.assertNotIn("entries are hidden", output)

    def test_a_reset_that_fails_is_an_error_of_its_test_only(self) -> None:
        self.suite(test_it="""
            fails = [True, False, True]
            def reset(executor):
                noting(executor)
                assert not fails.pop(), "a reset"
            server = service_fixture(DECLARED.replace(reset=reset), scope="session")

            def test_1(server): pass
            def test_2(server): pass
            def test_3(server): pass
        """)  # fmt: skip
        output = self.run_pytest(code=1, passed=1, errors=2)
        self.assertIn("server could not be reset before test_it.py::test_1.", output)

    def test_the_environment_can_replace_one_and_a_missing_program_skips(self) -> None:
        self.suite(test_it="""
            server = service_fixture(DECLARED.replace(reset=None))
            missing = service_fixture(TCPService("no-such-program {port}", if_missing="skip"))

            def test_it(server): assert server.port == int(os.environ["CASEEXEC_USE_SERVER"].partition(":")[2])
            def test_missing(missing): pass
        """)  # fmt: skip
        import socket

        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.environment["CASEEXEC_USE_SERVER"] = f"127.0.0.1:{listening.getsockname()[1]}"
            output = self.run_pytest("-rs", passed=1, skipped=1)
        self.assertIn("test_it.missing.command: there is no program 'no-such-program'", output)
        self.assertIn(
            f"services: server (CASEEXEC_USE_SERVER={self.environment['CASEEXEC_USE_SERVER']}), no-such", output
        )

    def test_asynchronous_tests_and_skipped_ones(self) -> None:
        self.suite(test_it="""
            server = service_fixture(DECLARED, scope="module")

            @pytest.mark.usefixtures("server")
            class It(unittest.IsolatedAsyncioTestCase):
                async def test_it(self):
                    await asyncio.sleep(0)
                    with open("pids") as file:
                        assert len(file.readlines()) == 1

            @pytest.mark.skip
            def test_skipped(server): pass
        """)  # fmt: skip
        self.run_pytest(passed=1, skipped=1)
        self.assertEqual(len(self.pids()), 1, "a skipped one does not reset it")

    def test_without_the_plugin_it_says_how_to_get_it(self) -> None:
        self.suite(test_it="server = service_fixture(DECLARED)\ndef test_it(server): pass\n")
        output = self.run_pytest(plugin="no:caseexec", code=1, error=1)
        self.assertIn("which is turned off: run pytest with -p caseexec.pytest_plugin", output)


class DeclarationsTests(unittest.TestCase):
    def test_a_scope_that_contradicts_the_declaration_is_refused(self) -> None:
        declared = TCPService("x {port}", scope="session")
        with self.assertRaisesRegex(
            DeclarationError,
            r"^service_fixture\(\) in tests.test_pytest_plugin: its scope is 'module', but the declaration's own is "
            r"'session': leave one of them out, or give it declaration.replace\(scope='module'\)$",
        ):
            service_fixture(declared, scope="module")
        service_fixture(declared, scope="session")
        service_fixture(TCPService("x {port}", scope="test"), scope="function")

    def test_what_it_is_given_is_checked(self) -> None:
        declared = TCPService("x {port}")
        for arguments, problem in (
            ((declared, "modul"), "its scope is 'modul', but can only be \"function\" or .*; did you mean module"),
            (("redis-server", None), "'redis-server' is no declaration: give it one"),
            ((TCPService("x {port}", after=(declared,)), None), r"redis\.after: a fixture is named by its name, as in"),
            ((TCPService("x {port}", after=("my-own",)), None), r"redis\.after: it names 'my-own', which can't be"),
            (
                (TCPService("x {port} {live_server_url}"), None),
                r"redis\.command: {live_server_url} is known to a test cl",
            ),
            ((TCPService("x {port} {request.port}"), None), r"redis\.command: it names 'request', which can't be"),
        ):
            with self.subTest(problem), self.assertRaisesRegex(DeclarationError, problem):
                service_fixture(arguments[0], scope=arguments[1], name="redis")


class ReportTests(PluginCase):
    def test_behind_the_collection_the_programs_are_named_that_its_tests_use(self) -> None:
        self.suite(test_it="""
            class Ready(TCPService):
                def version(self): return "15.14"
            class Missing(TCPService):
                def version(self): raise FileNotFoundError("no program postgres")
            class Broken(TCPService):
                @property
                def version(self): raise KeyError("?")
            class Odd(TCPService):
                def version(self): raise KeyError("?")

            ready = service_fixture(Ready("x {port}"))
            unused = service_fixture(TCPService("unused {port}"))
            needed = service_fixture(TCPService("/no/where {port}"))
            needs = service_fixture(TCPService("sh -c 'exit {needed.port}' {port}"))
            broken = service_fixture(Broken("x {port}"))
            work = service_fixture(OneShot("true"))

            class It(ServicesMixin, unittest.TestCase):
                one = TCPService("{python} -m shop.server {port}")
                two = Missing("x {port}")
                three = Odd("x {port}")
                four = CommandService("exec nginx", shell=True, check="true")
                def test_it(self): pass

            def test_it(ready, needs, broken, work): pass
        """)  # fmt: skip
        output = self.run_pytest("-k", "test_it", "--setup-plan", code=0)
        (line,) = re.findall("^services: .*", output, re.M)
        line = re.sub(r"\(/\S*/(python\S*|sh|dash|bash)\)", r"(BIN)", line)
        line = re.sub(r"python[\d.]* ", "python ", line)
        self.assertEqual(
            sorted(line.removeprefix("services: ").split(", ")),
            ["/no/where (not installed)", "Broken", "Missing (not installed)", "Odd (version unknown)", "Ready 15.14",
             "exec nginx", "python -m shop.server (BIN)", "sh (BIN)"],
        )  # fmt: skip

    def test_what_services_wrote_is_in_sections_of_the_report(self) -> None:
        self.suite(test_it="""
            WRITES = CommandService(["sh", "-c", "echo begun; kill -STOP $$; echo told; sleep 300"], check="true")
            writes = service_fixture(WRITES)

            def tell(executor):
                assert soon(lambda: is_stopped(executor.pid))
                os.kill(executor.pid, signal.SIGCONT)
                executor.wait_for_output("told")

            def test_that_fails(writes):
                tell(writes)
                assert False, "no"

            def test_that_passes(writes):
                tell(writes)

            @pytest.fixture
            def fails(writes):
                tell(writes)
                raise KeyError("set-up")

            def test_whose_set_up_fails(writes, fails): pass

            def test_that_asks_for_it_late(request):
                tell(request.getfixturevalue("writes"))
                assert False, "late"

            class Base(unittest.TestCase):
                @classmethod
                def setUpClass(cls):
                    tell(cls.writes)
                    raise KeyError("class")

            class SetUp(ServicesMixin, Base):
                writes = WRITES
                def test_it(self): pass

            def test_skipped(writes):
                pytest.skip("no more")

            def test_that_another_plugin_refuses(): pass
        """, conftest="""
            @pytest.hookimpl(tryfirst=True)
            def pytest_runtest_setup(item):
                assert "refuses" not in item.name
        """)  # fmt: skip
        output = self.run_pytest(code=1, failed=2, errors=3, passed=1, skipped=1)
        for name in ("test_that_fails", "test_whose_set_up_fails", "test_that_asks_for_it_late", "SetUp.test_it"):
            with self.subTest(name):
                _, _, told = output.partition(f" {name} _")
                told = masked(told.partition("\n__")[0].partition("\n==")[0])
                self.assertRegex(told, r"- Captured output of writes \(sh\), LOG -+\n(begun\n)?told\Z")
        self.assertEqual(output.count("Captured output of"), 4, output)
        self.assertNotIn("What its services wrote", output)

    def test_the_summary_has_the_text_of_errors_of_classes_too(self) -> None:
        self.suite(test_it="""
            class It(ServicesMixin, unittest.TestCase):
                server = DECLARED
                def test_1(self): crash(self.server)
                def test_2(self): pass
                def test_3(self): pass

            class NoSuper(ServicesMixin, unittest.TestCase):
                server = DECLARED
                @classmethod
                def setUpClass(cls): pass
                def test_it(self): pass

            class Fails(ServicesMixin, unittest.TestCase):
                server = TCPService("sh -c 'exit 3' {port}")
                def test_it(self): pass
        """)  # fmt: skip
        output = self.run_pytest(code=1, passed=1)
        summary = output.partition("short test summary")[2]
        for text in (
            "test_2 - caseexec.errors.ServiceDied: server was killed by SIGKILL during It.test_1",
            "test_3 - caseexec.errors.ServiceUnavailable: server was killed by SIGKILL during It.test_1",
            "NoSuper::test_it - caseexec.errors.ServiceNotStarted: test_it.NoSuper: its service was not started",
            "Fails::test_it - caseexec.errors.ProcessExitedWithError: test_it.Fails.server exited with status 3",
        ):
            self.assertIn(text, re.sub(r"caseexec\.errors\.\w+\.", "caseexec.errors.", summary))

    def test_other_styles_of_tracebacks_are_left_as_they_are(self) -> None:
        self.suite(test_it="""
            broken = service_fixture(TCPService("sh -c 'exit 3' {port}"))
            def test_it(broken): pass
        """)  # fmt: skip
        self.assertIn("test_it.broken exited with status 3", self.run_pytest("--tb=native", code=1, error=1))

    def test_it_works_without_those_of_pytests_own_plugins_that_it_adds_to(self) -> None:
        self.suite(test_it="""
            server = service_fixture(DECLARED)
            def test_it(server): crash(server)
        """)  # fmt: skip
        code, output = self.run_python(*self.arguments("-p", "no:terminal", "-p", "no:debugging"))
        self.assertEqual((code, output), (1, ""))

    def test_they_are_kept_on_demand(self) -> None:
        self.suite(test_it="""
            server = service_fixture(DECLARED)
            writes = service_fixture(CommandService(["sh", "-c", "echo this >{tmp}/file; exec sleep 300"],
                                                    check="test -s {tmp}/file", reset=noting))
            def test_it(server, writes): pass
        """)  # fmt: skip
        found, output = self.run_python(*self.arguments("--caseexec-keep"))
        self.assertEqual(found, 0, output)
        kept = re.findall(r"^test_it\.(\w+): (\S+)$", output.partition("services kept (--caseexec-keep)")[2], re.M)
        self.assertEqual([name for name, _ in kept], ["writes", "server"])
        with open(os.path.join(kept[0][1], "file")) as file:
            self.assertEqual(file.read(), "this\n")
        with open(kept[1][1]) as file:
            self.assertIn("listening", file.read())
        self.assertEqual({path for _, path in kept}, {self.path(f"run/{name}") for name in os.listdir(self.run_tmp)})

    def test_logs_are_kept_in_a_directory(self) -> None:
        self.suite(test_it="server = service_fixture(DECLARED)\ndef test_it(server): pass\n")
        output = self.run_pytest("--caseexec-log-dir", "logs", passed=1)
        self.assertNotIn("kept", output)
        (name,) = os.listdir(self.path("logs"))
        self.assertRegex(name, r"^[0-9a-f]{16}-test_it\.server\.log$")
        self.assertEqual(os.listdir(self.run_tmp), [])
        self.write("file", "")
        output = self.run_pytest("--caseexec-log-dir", "file/logs", code=1, error=1)
        self.assertRegex(output, "DeclarationError: --caseexec-log-dir: no log can be kept in '.*file/logs': Not a dir")


class DebuggerTests(PluginCase):
    def test_services_live_while_a_debugger_looks_at_a_failure(self) -> None:
        self.suite(test_it="""
            import pdb
            function = service_fixture(DECLARED, scope="function")

            class Debugger(pdb.Pdb):
                def interaction(self, *_):
                    with open("pids") as file, open("looked", "a") as looked:
                        print(sum(map(alive, map(int, set(file)))), file=looked)

            class It(ServicesMixin, unittest.TestCase):
                of_class = DECLARED
                of_test = DECLARED.replace(scope="test")

                def tearDown(self):
                    assert self.of_test.running()

                def test_1(self): self.fail("1")
                def test_2(self): self.fail("2")

            def test_it(function): assert False
        """)  # fmt: skip
        self.run_pytest("--pdb", "--pdbcls=test_it:Debugger", code=1, failed=3)
        with open(self.path("looked")) as file:
            self.assertEqual(file.read().split(), ["2", "2", "1"])


class InterruptTests(PluginCase):
    """Whatever comes in the way, nothing remains."""

    SUITE = """
        import sys, time
        never = service_fixture(CommandService(["sh", "-c", "echo $$ >>pids; echo >started; sleep 300"], check="false"))
        deaf = service_fixture(CommandService(["sh", "-c", "trap 'echo >asked' TERM; echo $$ >>pids; echo >{tmp}/ready; "
                                               "while :; do sleep 0.01; done"], check="test -s {tmp}/ready"))

        def test_never(never): pass

        def test_deaf(deaf):
            with open("begun", "w"):
                time.sleep(60)
    """

    def test_an_interrupt_while_a_fixture_starts(self) -> None:
        self.suite(test_it=self.SUITE)
        process = self.begin(*self.arguments("-k", "never"))
        output = self.interrupt_when(process, "started")
        self.assertIn("KeyboardInterrupt", output)
        self.assertEqual(process.returncode, 2, output)
        self.assert_all_ended(output)

    def test_two_interrupts(self) -> None:
        self.suite(test_it=self.SUITE)
        process = self.begin(*self.arguments("-k", "deaf"))
        self.assertTrue(soon(lambda: os.path.exists(self.path("begun")), 30))
        process.send_signal(signal.SIGINT)
        output = self.interrupt_when(process, "asked")
        self.assertIn("KeyboardInterrupt", output)
        self.assert_all_ended(output)

    def test_a_killed_run(self) -> None:
        self.suite(test_it=self.SUITE)
        process = self.begin(*self.arguments("-k", "deaf"))
        output = self.interrupt_when(process, "begun", signal.SIGKILL)
        self.assertTrue(soon(lambda: not any(map(alive, self.pids()))), output)

    def test_one_that_never_gets_ready_is_waited_for_once(self) -> None:
        self.suite(test_it="""
            never = service_fixture(CommandService("sleep 300", check="false", start_timeout=0.1), scope="function")
            def test_1(never): pass
            def test_2(never): pass
        """)  # fmt: skip
        output = self.run_pytest(code=1, errors=2)
        self.assertEqual(output.count("E   caseexec.errors.TimeoutExpired: test_it.never timed out after 0.1"), 1)

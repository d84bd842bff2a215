import gc
import os
import socket
import sys
import unittest
import urllib.request
from unittest import mock

import caseexec
from caseexec import cgroup, errors, supervisor
from caseexec.mixins import HTTPServiceMixin, OutputServiceMixin, ServiceMixin, TCPServiceMixin
from tests.helpers.classes import SERVER, MixinCase, run_class
from tests.helpers.leaks import alive, soon
from tests.helpers.programs import EXIT_3, VANISHES, python
from tests.helpers.runs import RunCase

PYTHON = os.path.basename(sys.executable)


class LifeTests(MixinCase):
    kept_logs = 0

    def test_a_class_has_its_service_while_its_tests_run(self) -> None:
        seen = []

        class Case(TCPServiceMixin):
            service_command = SERVER

            def test_it_answers(self) -> None:
                seen.append(self.service)
                socket.create_connection((self.service.host, self.service.port)).close()
                self.assertTrue(alive(self.service.pid) and os.path.isdir(self.service.tmp))
                self.assertTrue(soon(lambda: "listening" in self.service.tail()))

            def test_it_is_the_same_for_all_tests(self) -> None:
                seen.append(self.service)

        self.assert_passes(Case)
        self.assertIs(*seen)
        self.assertFalse(seen[0].running() or os.path.exists(seen[0].tmp))
        self.assertFalse(hasattr(Case, "service"))
        self.assertEqual(Case.service_port, 0)

    def test_an_http_service_with_the_server_of_the_standard_library(self) -> None:
        class Case(HTTPServiceMixin, unittest.TestCase):
            service_command = "{python} -m http.server {port} --bind {host} --directory {tmp}"

            def test_it_serves_its_directory(self) -> None:
                with open(os.path.join(self.service.tmp, "hello.txt"), "w") as file:
                    file.write("hello")
                with urllib.request.urlopen(f"{self.service.url}/hello.txt") as answer:
                    self.assertEqual(answer.read(), b"hello")

        self.assert_passes(Case)

    def test_the_service_starts_before_and_stops_after_the_classes_own_fixtures(self) -> None:
        order = []

        class Base(unittest.TestCase):
            @classmethod
            def setUpClass(cls) -> None:
                super().setUpClass()
                order.append(("base up", cls.service.running()))

            @classmethod
            def tearDownClass(cls) -> None:
                order.append(("base down", cls.service.running()))
                super().tearDownClass()

        class Case(TCPServiceMixin, Base):
            service_command = SERVER

            def test(self) -> None:
                order.append(("test", True))

        self.assert_passes(Case)
        self.assertEqual(order, [("base up", True), ("test", True), ("base down", True)])

    def test_a_subclass_has_a_service_of_its_own(self) -> None:
        pids = []

        class First(TCPServiceMixin):
            service_command = SERVER

            def test(self) -> None:
                pids.append(self.service.pid)

        class Second(First):
            service_env = {"A": "b"}

        self.assert_passes(First)
        self.assert_passes(Second)
        self.assertEqual(len(set(pids)), 2)

    @unittest.skipUnless(supervisor.available(), "there are no supervisors here")
    def test_one_that_daemonizes_runs_below_a_supervisor(self) -> None:
        seen = []

        class Case(OutputServiceMixin):
            # The daemon says when it has left.
            service_command = python(VANISHES.replace("exec sleep", "echo gone; exec sleep"), "{tmp}/pid", "")
            service_banner = "gone"
            service_daemonizes = True

            def test(self) -> None:
                self.assertIn(supervisor.__file__, self.service.process.args)
                # Without those that have started it.
                self.assertTrue(soon(lambda: len(self.service.living()) == 2))
                seen.extend(self.service.living())

        with mock.patch.dict(os.environ, {cgroup.SWITCH: "0"}):
            self.assert_passes(Case)
        self.assertGreaterEqual(len(seen), 2)
        self.assertFalse(any(map(alive, seen)))

    def test_asynchronous_tests_have_it_too(self) -> None:
        import asyncio

        class Case(TCPServiceMixin, unittest.IsolatedAsyncioTestCase):
            service_command = SERVER

            async def test(self) -> None:
                _, writer = await asyncio.open_connection(self.service.host, self.service.port)
                writer.close()
                await writer.wait_closed()

        self.assert_passes(Case)

    def test_a_probe_of_the_class_is_a_function_and_not_a_method(self) -> None:
        asked = []

        class Case(TCPServiceMixin):
            service_command = SERVER

            def service_probe(executor) -> bool:
                asked.append(executor.port)
                return len(asked) == 2

            def test(self) -> None:
                pass

        self.assert_passes(Case)
        self.assertEqual(len(asked), 2)

        class Static(Case):
            service_probe = staticmethod(lambda executor: executor.port > 0)

        self.assert_passes(Static)

    def test_it_can_be_stopped_for_a_while(self) -> None:
        class Case(TCPServiceMixin):
            service_command = SERVER

            def test(self) -> None:
                port, tmp = self.service.port, self.service.tmp
                with self.service.stopped(), self.assertRaises(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port)).close()
                socket.create_connection(("127.0.0.1", port)).close()
                self.assertEqual((self.service.port, os.path.isdir(tmp)), (port, True))

        self.assert_passes(Case)

    def test_a_class_whose_tests_are_all_skipped_by_its_decorator_starts_nothing(self) -> None:
        @unittest.skip("not today")
        class Case(TCPServiceMixin):
            service_command = "no-such-program {port}"

            def test(self) -> None:
                pass

        self.assertEqual(len(self.run_class(Case).skipped), 1)


class FailureTests(MixinCase):
    def test_a_start_that_fails_is_the_error_of_the_class(self) -> None:
        class Case(TCPServiceMixin):
            service_command = [*EXIT_3, "{port}"]

            def test(self) -> None:
                raise AssertionError("must not run")

        error = self.the_error(Case)
        self.assertRegex(error, r"^caseexec\.errors\.ProcessExitedWithError: .*FailureTests.*Case exited with status 3")
        self.assertIn("    it hurts", error)
        self.assertNotIn("Traceback", error, "the frames of caseexec are of no interest")

    def test_a_missing_program_names_the_attribute(self) -> None:
        class Case(TCPServiceMixin):
            service_command = "no-such-program {port}"

            def test(self) -> None:
                pass

        error = self.the_error(Case)
        self.assertRegex(
            error, r"there is no program 'no-such-program'\n  Install it, or change .*Case\.service_command\."
        )

    def test_an_error_in_the_set_up_behind_ours_ends_the_service(self) -> None:
        for raised in (ZeroDivisionError, unittest.SkipTest, KeyboardInterrupt, SystemExit):
            pids = []

            class Base(unittest.TestCase):
                @classmethod
                def setUpClass(cls, raised=raised, pids=pids) -> None:
                    pids.append(cls.service.pid)
                    raise raised("now")

            class Case(TCPServiceMixin, Base):
                service_command = SERVER

                def test(self) -> None:
                    pass

            with self.subTest(raised):
                try:
                    self.run_class(Case)
                except (KeyboardInterrupt, SystemExit):
                    pass
                self.assertFalse(alive(pids[0]))

    def test_an_error_in_the_classes_own_set_up_ends_the_service_with_a_warning(self) -> None:
        pids = []

        class Case(TCPServiceMixin):
            service_command = SERVER

            @classmethod
            def setUpClass(cls) -> None:
                super().setUpClass()
                pids.append(cls.service.pid)
                raise ZeroDivisionError

            def test(self) -> None:
                pass

        _, caught = run_class(Case)
        self.assert_leak(caught, Case, pids[0], "setUpClass failed after the service had started")

    def test_a_tear_down_without_super_is_told(self) -> None:
        pids = []

        class Case(TCPServiceMixin):
            service_command = SERVER

            @classmethod
            def tearDownClass(cls) -> None:
                pids.append(cls.service.pid)

            def test(self) -> None:
                pass

        _, caught = run_class(Case)
        self.assert_leak(caught, Case, pids[0], "tearDownClass did not stop it")

    def assert_leak(self, caught, case, pid, why) -> None:
        (warning,) = (warning.message for warning in caught)
        self.assertIsInstance(warning, errors.LeakedProcessWarning)
        self.assertEqual((warning.pids, warning.who), ([pid], f"{case.__module__}.{case.__qualname__}"))
        self.assertIn("-c", warning.command)
        self.assertIn(why, str(warning))
        self.assertFalse(alive(pid))

    def test_an_error_in_the_tear_down_behind_ours_still_stops_the_service(self) -> None:
        pids = []

        class Base(unittest.TestCase):
            @classmethod
            def tearDownClass(cls) -> None:
                pids.append(cls.service.pid)
                raise ZeroDivisionError

        class Case(TCPServiceMixin, Base):
            service_command = SERVER

            def test(self) -> None:
                pass

        self.assertIn("ZeroDivisionError", self.the_error(Case))
        self.assertFalse(alive(pids[0]))

    def test_a_service_that_crashed_during_the_tests_is_an_error_of_the_class(self) -> None:
        class Case(TCPServiceMixin):
            service_command = SERVER

            def test(self) -> None:
                os.kill(self.service.pid, 11)
                self.service.process.wait()

        self.assertIn(
            "service (python3.11 -c) was killed by SIGSEGV during Case.test".replace("python3.11", PYTHON),
            self.the_error(Case),
        )


class GuardTests(MixinCase):
    def test_the_mixin_behind_test_case_is_an_error(self) -> None:
        with self.assertRaises(TypeError):
            type("Case", (unittest.TestCase, TCPServiceMixin), {})

    def test_a_set_up_without_super_is_told_on_each_test(self) -> None:
        class Case(TCPServiceMixin):
            service_command = SERVER

            @classmethod
            def setUpClass(cls) -> None:
                pass

            def test(self) -> None:
                raise AssertionError("must not run")

            @unittest.skip("no matter")
            def test_skipped(self) -> None:
                pass

        result = self.run_class(Case)
        self.assertEqual((len(result.errors), len(result.skipped)), (1, 1))
        self.assertIn("Case.setUpClass does not call super().setUpClass()", result.errors[0][1])

    def test_a_base_before_the_mixin_that_does_not_call_super_is_named(self) -> None:
        class Base(unittest.TestCase):
            @classmethod
            def setUpClass(cls) -> None:
                pass

        class Case(Base, TCPServiceMixin):
            service_command = SERVER

            def test(self) -> None:
                pass

        self.assertIn("Base.setUpClass does not call super().setUpClass()", self.the_error(Case))

    def test_a_runner_that_calls_no_class_fixtures_is_told(self) -> None:
        class Case(TCPServiceMixin):
            service_command = SERVER

            def test(self) -> None:
                pass

        result = unittest.TestResult()
        Case("test").run(result)
        self.assertIn("the test runner did not call setUpClass", result.errors[0][1])

    def test_a_runner_that_has_not_called_it_is_told_also_when_the_class_has_a_set_up_of_its_own(self) -> None:
        class Case(TCPServiceMixin):
            service_command = SERVER

            @classmethod
            def setUpClass(cls) -> None:
                super().setUpClass()

            def test(self) -> None:
                pass

        result = unittest.TestResult()
        Case("test").run(result)
        self.assertIn("the test runner did not call setUpClass", result.errors[0][1])

    def test_a_runner_that_empties_its_tests_may_do_so(self) -> None:
        class Result(unittest.TestResult):
            def stopTest(self, test: unittest.TestCase) -> None:
                vars(test).clear()

        class Case(TCPServiceMixin):
            service_command = SERVER

            def test(self) -> None:
                raise AssertionError("must not run")

        result = Result()
        Case("test").run(result)
        self.assertEqual(len(result.errors), 1)

    def test_asynchronous_tests_are_guarded_too(self) -> None:
        class Case(TCPServiceMixin, unittest.IsolatedAsyncioTestCase):
            service_command = SERVER

            async def test(self) -> None:
                raise AssertionError("must not run")

        result = unittest.TestResult()
        Case("test").run(result)
        self.assertIn("the test runner did not call setUpClass", result.errors[0][1])
        gc.collect()

    def test_a_misspelt_attribute_is_an_error_when_the_class_is_defined(self) -> None:
        with self.assertRaisesRegex(errors.DeclarationError, r"^tests\.test_mixins\..*Case\.service_prot: .*did you mean "
                                    "service_port?"):  # fmt: skip

            class Case(TCPServiceMixin):
                service_prot = 80

    def test_an_attribute_of_another_kind_is_an_error(self) -> None:
        with self.assertRaisesRegex(
            errors.DeclarationError,
            "Case.service_status: TCPServiceMixin has no such attribute, it belongs to HTTPServiceMixin",
        ):

            class Case(TCPServiceMixin):
                service_status = 404

    def test_the_service_of_a_class_without_one_says_why(self) -> None:
        class Case(TCPServiceMixin):
            service_command = SERVER

        with self.assertRaisesRegex(errors.ServiceNotStarted, r"Case\.service: it does not run now, only from"):
            _ = Case.service
        self.assertFalse(hasattr(Case, "service"))

    def test_a_class_method_can_be_the_probe(self) -> None:
        class Case(TCPServiceMixin):
            service_command = SERVER
            wanted = "127.0.0.1"

            @classmethod
            def service_probe(cls, executor) -> bool:
                return executor.host == cls.wanted

            def test(self) -> None:
                pass

        self.assert_passes(Case)

    def test_methods_of_ones_own_may_have_the_prefix(self) -> None:
        class Case(TCPServiceMixin):
            def service_flush(self) -> None: ...

            @classmethod
            def service_settings(cls) -> None: ...

            @property
            def service_thing(self) -> int:
                return 1

        self.assertTrue(issubclass(Case, ServiceMixin))

    def test_a_value_that_cannot_be_right_names_module_class_and_attribute(self) -> None:
        with self.assertRaisesRegex(
            errors.DeclarationError, r"^tests\.test_mixins\..*Case\.service_port: 70000 is no port"
        ):

            class Case(TCPServiceMixin):
                service_command = "run"
                service_port = 70000

    def test_a_class_without_a_command_can_be_a_base_but_not_be_run(self) -> None:
        class Case(TCPServiceMixin):
            service_start_timeout = 5

            def test(self) -> None:
                pass

        self.assertRegex(self.the_error(Case), r"Case\.service_command: None is no command: name the program")

    def test_windows_gets_a_clear_error(self) -> None:
        class Case(TCPServiceMixin):
            service_command = SERVER

            def test(self) -> None:
                pass

        with mock.patch.object(caseexec.executors.simple.os, "name", "nt"):
            self.assertIn("Linux and macOS, not on Windows", self.the_error(Case))


class RunnersTests(RunCase):
    """What an interrupt leaves, under real runners."""

    SUITE = """
        import os, unittest
        from caseexec import TCPServiceMixin

        class Case(TCPServiceMixin):
            service_command = "{{python}} -m http.server {{port}} --bind {{host}}"
            {setup}

            def test(self):
                print("pid", self.service.pid, flush=True)
                {test}
    """
    WAIT = 'open("waiting", "w").close(); [__import__("time").sleep(0.05) for _ in iter(int, 1)]'
    RUNNERS = (["unittest", "test_suite"], ["unittest", "-c", "test_suite"], ["pytest", "-q", "-s", "test_suite.py"])

    def suite(self, test: str = "pass", setup: str = "pass") -> None:
        self.write("test_suite.py", self.SUITE.format(test=test, setup=setup))

    def assert_nothing_left(self, output: str, logs: str = "nothing") -> None:
        (pid,) = {int(line.split()[-1]) for line in output.splitlines() if line.rpartition("pid ")[0:2] and "pid " in line
                  and line.split()[-1].isdigit()}  # fmt: skip
        self.assertFalse(alive(pid), output)
        # The log of a class with a failed test stays.
        self.assertEqual([name for name in os.listdir(self.run_tmp) if not name.endswith(logs)], [], output)

    def test_a_suite_passes_under_each(self) -> None:
        self.suite()
        for runner in self.RUNNERS:
            with self.subTest(runner):
                code, output = self.run_python("-W", "error", "-m", *runner)
                self.assertEqual(code, 0, output)
                self.assert_nothing_left(output)

    def test_an_interrupt_in_a_test_leaves_nothing(self) -> None:
        self.suite(self.WAIT)
        for runner in (self.RUNNERS[0], self.RUNNERS[2]):
            with self.subTest(runner):
                output = self.interrupt_when(self.begin("-m", *runner), "waiting")
                self.assert_nothing_left(output)
                os.unlink(self.path("waiting"))

    def test_an_interrupt_in_the_wait_for_the_service_leaves_nothing(self) -> None:
        setup = f"""
            def service_probe(executor):
                print("pid", executor.pid, flush=True)
                {self.WAIT}"""
        self.suite(setup=setup)
        for runner in (self.RUNNERS[0], self.RUNNERS[2]):
            with self.subTest(runner):
                output = self.interrupt_when(self.begin("-m", *runner), "waiting")
                self.assertFalse(alive(int(output.rpartition("pid ")[2].split()[0])), output)
                self.assertEqual([name for name in os.listdir(self.run_tmp) if not name.endswith(".log")], [], output)
                os.unlink(self.path("waiting"))

    def test_leaving_by_an_exit_in_a_test_leaves_nothing(self) -> None:
        self.suite("raise SystemExit(3)")
        for runner in self.RUNNERS:
            with self.subTest(runner):
                _, output = self.run_python("-m", *runner)
                self.assert_nothing_left(output, ".log")

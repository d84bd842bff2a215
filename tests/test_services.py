"""Test classes with several services."""

import asyncio
import itertools
import os
import re
import signal
import socket
import sys
import tempfile
import threading
import time
import unittest
import warnings
from unittest import mock

from caseexec import errors, ports
from caseexec.executors import HTTPExecutor, TCPExecutor, UnixSocketExecutor, portfinder, waiting
from caseexec.executors.portfinder import PortFinder
from caseexec.mixins import OutputServiceMixin, ServicesMixin, TCPServiceMixin, results
from caseexec.output import OutputLog, Search
from caseexec.registry import current_run
from caseexec.scopes import shared
from caseexec.service import (
    CommandService,
    HTTPService,
    OneShot,
    OutputService,
    PidService,
    Service,
    TCPService,
    UnixSocketService,
)
from tests.helpers.classes import SERVER, MixinCase, masked, run_class, the_notes
from tests.helpers.leaks import alive, soon
from tests.helpers.programs import EXIT_3, TCP_SERVER, UNIX_SERVER, python

# Writes its arguments, and then what it is told through its {tmp}/say.
SAYS = python("""
    import os, sys, time
    print(' '.join(['begin', *sys.argv[2:]]))
    while True:
        try:
            with open(sys.argv[1] + '/say') as file:
                text = file.read()
        except OSError:
            time.sleep(0.001)
            continue
        os.unlink(sys.argv[1] + '/say')
        print(text)
""")


def says(*words: str, **options) -> OutputService:
    return OutputService([*(part.replace("{", "{{").replace("}", "}}") for part in SAYS), "{tmp}", *words],
                         banner="begin", **options)  # fmt: skip


def say(executor, text: str) -> None:
    """Have such a service write something, and wait until it has."""
    mark = executor.output_mark()
    with open(f"{executor.tmp}/new", "w") as file:
        file.write(text)
    os.rename(f"{executor.tmp}/new", f"{executor.tmp}/say")
    executor.wait_for_output(re.escape(text[-20:]) + "\\n", since=mark)


def crash(executor, number: int = signal.SIGSEGV) -> None:
    """Have a service end by itself, as its tests see it."""
    os.kill(executor.pid, number)
    assert soon(executor.has_died)


class DeclarationsTests(MixinCase):
    kept_logs = 0

    def test_each_service_is_an_attribute(self) -> None:
        seen = []

        class Case(ServicesMixin, unittest.TestCase):
            first = TCPService(SERVER)
            second = TCPService(SERVER)

            @classmethod
            def setUpClass(cls) -> None:
                super().setUpClass()
                seen.append((cls.first, cls.second))

            def test(self) -> None:
                seen.append((self.first, self.second))
                for service in seen[0]:
                    socket.create_connection((service.host, service.port)).close()

        self.assert_passes(Case)
        self.assertEqual(seen[0], seen[1])
        self.assertIsNot(*seen[0])
        self.assertFalse(any(service.running() for service in seen[0]) or hasattr(Case, "first"))

    def test_two_attributes_with_the_same_declaration_are_two_services(self) -> None:
        server = TCPService(SERVER)

        class Case(ServicesMixin):
            first = second = server

            def test(self) -> None:
                self.assertNotEqual(self.first.port, self.second.port)

        class Other(ServicesMixin):
            first = server

            def test(self) -> None:
                self.assertTrue(self.first.running())

        self.assert_passes(Case)
        self.assert_passes(Other)

    def test_the_same_declaration_through_two_bases_is_two_services(self) -> None:
        server = TCPService(SERVER)

        class First(ServicesMixin):
            first = server

        class Plain:
            second = server

        class Case(First, Plain):
            def test(self) -> None:
                self.assertNotEqual(self.first.port, self.second.port)

        self.assert_passes(Case)

    def test_a_test_may_call_its_own_set_up_again(self) -> None:
        calls = []

        class Case(ServicesMixin):
            server = TCPService(SERVER, scope="test", reset=calls.append)

            def setUp(self) -> None:
                calls.append("set-up")

            def test(self) -> None:
                server = self.server
                self.setUp()
                self.assertIs(self.server, server)

        self.assert_passes(Case)
        self.assertEqual(calls[1:], ["set-up", "set-up"])

    def test_a_subclass_replaces_derives_and_removes(self) -> None:
        server = TCPService(SERVER)

        class Base(ServicesMixin):
            kept, replaced, derived, removed = (server.replace() for _ in range(4))

        class Case(Base):
            replaced = says()
            derived = server.replace(env={"A": "b"})
            removed = None

            def test(self) -> None:
                self.assertIn("begin", self.replaced.tail())
                self.assertEqual(self.derived.envvars["A"], "b")
                self.assertIsNone(self.removed)
                self.assertTrue(self.kept.running())

        self.assert_passes(Case)
        self.assertEqual(list(Base.service_declarations()), ["kept", "replaced", "derived", "removed"])
        self.assertEqual(list(Case.service_declarations()), ["kept", "replaced", "derived"])

    def test_a_plain_class_can_hold_declarations(self) -> None:
        class Plain:
            server = TCPService(SERVER)

        class Case(Plain, ServicesMixin):
            def test(self) -> None:
                self.assertTrue(self.server.running())

        self.assertIsInstance(Plain.server, TCPService)
        self.assert_passes(Case)

    def test_a_mixin_for_one_service_takes_others_beside_it(self) -> None:
        class Case(OutputServiceMixin):
            service_command = says("{server.address}").command
            service_banner = "begin"
            server = TCPService(SERVER)

            def test(self) -> None:
                self.assertIn(self.server.address, self.service.tail())

        self.assert_passes(Case)

    def test_asynchronous_tests_have_them_too(self) -> None:
        class Case(ServicesMixin, unittest.IsolatedAsyncioTestCase):
            server = TCPService(SERVER)

            async def test(self) -> None:
                ticks, done = 0, False

                async def tick() -> None:
                    nonlocal ticks
                    while not done:
                        ticks += 1
                        await asyncio.sleep(0)

                ticking = asyncio.ensure_future(tick())
                pid = self.server.pid
                await self.server.arestart()
                self.assertNotEqual(self.server.pid, pid)
                before = ticks
                async with self.server.astopped():
                    self.assertFalse(self.server.running())
                self.assertTrue(self.server.running())
                self.assertGreater(ticks, before + 1, "the loop went on meanwhile")
                done = True
                await ticking

        self.assert_passes(Case)

    def test_a_cancelled_task_leaves_it_started(self) -> None:
        class Case(ServicesMixin, unittest.IsolatedAsyncioTestCase):
            server = TCPService(SERVER)

            async def test(self) -> None:
                async def work() -> None:
                    async with self.server.astopped():
                        stopped.set()
                        await asyncio.sleep(300)

                for cancel_early in (True, False):
                    stopped = asyncio.Event()
                    task = asyncio.ensure_future(work())
                    await (asyncio.sleep(0) if cancel_early else stopped.wait())
                    task.cancel()
                    with self.assertRaises(asyncio.CancelledError):
                        await task
                    socket.create_connection((self.server.host, self.server.port)).close()

        self.assert_passes(Case)

    def test_a_class_without_the_mixin_is_told_so(self) -> None:
        class Case(unittest.TestCase):
            server = TCPService(SERVER)

        with self.assertRaises(errors.DeclarationError) as caught:
            _ = Case.server
        self.assertEqual(
            str(caught.exception).partition("<locals>.")[2],
            "Case: it declares a TCPService, but nothing starts it, as Case does not derive from caseexec.ServicesMixin; "
            "name that first among its bases",
        )

    def test_before_its_start_it_is_an_error_to_use_it(self) -> None:
        class Case(ServicesMixin):
            server = TCPService(SERVER)

        with self.assertRaises(errors.ServiceNotStarted) as caught:
            _ = Case.server
        self.assertEqual(
            str(caught.exception).partition("<locals>.")[2],
            "Case.server: it does not run now, only from super().setUpClass() to super().tearDownClass(). For its "
            "declaration: Case.service_declarations()['server'].",
        )

    def test_an_unknown_option_is_named(self) -> None:
        for options, hint in (
            ({"prot": 1}, r"^TCPService\.prot: there is no such option; did you mean port\?$"),
            ({"service_port": 1}, r"^TCPService\.service_port: there is no such option; did you mean port\?$"),
            ({"zzz": 1}, r"^TCPService\.zzz: there is no such option: there are command, host, port, env, "),
        ):
            with self.assertRaisesRegex(errors.DeclarationError, hint):
                TCPService(SERVER).replace(**options)
            with self.assertRaisesRegex(errors.DeclarationError, hint):
                TCPService(SERVER, **options)

    def test_what_is_not_known_before_it_runs_is_told_so(self) -> None:
        for name in ("url", "tmp", "pid"):
            with self.assertRaises(AttributeError) as caught:
                getattr(TCPService(SERVER), name)
            self.assertEqual(
                str(caught.exception),
                f"TCPService.{name} is not known before the service runs: use self.name.{name} in a test, or a "
                f"placeholder such as {{name.{name}}} in another declaration",
            )
        with self.assertRaisesRegex(AttributeError, "^'TCPService' object has no attribute 'zzz'$"):
            _ = TCPService(SERVER).zzz

    def test_its_representation_tells_what_it_was_made_of_and_nothing_private(self) -> None:
        service = TCPService("run {port}", env={"PASSWORD": "secret"}, scope="session", start_timeout=3)
        self.assertEqual(repr(service), "TCPService('run {port}', start_timeout=3, scope='session')")

    def test_a_declaration_can_be_copied_and_pickled(self) -> None:
        import copy
        import pickle

        service = HTTPService("run {port}", path="/x", headers={"A": "b"})
        for again in (copy.copy(service), copy.deepcopy(service), pickle.loads(pickle.dumps(service))):
            self.assertEqual(again, service)

    def test_what_it_was_made_of_may_change_later(self) -> None:
        command, env = ["run", "{port}"], {"A": "b"}
        service = TCPService(command, env=env)
        command.append("x")
        env["A"] = "c"
        self.assertEqual((list(service.command), service.env), (["run", "{port}"], {"A": "b"}))


class RefusedTests(unittest.TestCase):
    """What is an error when the class is defined."""

    def refused(self, **attributes) -> str:
        with self.assertRaises(errors.DeclarationError) as caught:
            type("Case", (ServicesMixin,), {"__module__": "shop", **attributes})
        return str(caught.exception)

    def test_a_placeholder_of_a_service_that_is_not_there(self) -> None:
        self.assertEqual(
            self.refused(redis=TCPService(SERVER), api=TCPService("api {port} {redsi.port}")),
            "shop.Case.api.command: the placeholder {redsi.port} names 'redsi', but there is no such service "
            "(there are redis, api); did you mean redis?",
        )

    def test_a_kind_in_place_of_a_declaration(self) -> None:
        told = "shop.Case.web: TCPService is a kind of service and none itself: write TCPService(...)"
        self.assertEqual(self.refused(web=TCPService), told)

        class Case(ServicesMixin):
            class Web(TCPService):
                pass

        self.assertEqual(Case.service_declarations(), {})

    def test_a_placeholder_of_something_that_a_service_has_not(self) -> None:
        self.assertEqual(
            self.refused(redis=TCPService(SERVER), api=TCPService("api {port}", env={"A": "{redis.prot}"})),
            "shop.Case.api.env: the placeholder {redis.prot} can't be filled: a TCPService has no 'prot' to tell, only "
            "host, port, address, url, tmp; did you mean port?",
        )
        self.assertEqual(
            self.refused(job=says(), api=TCPService("api {port} {job.port}")),
            "shop.Case.api.command: the placeholder {job.port} can't be filled: job has no port: name it in its command, "
            "or give it one",
        )

    def test_a_name_after_that_is_not_there(self) -> None:
        self.assertEqual(
            self.refused(api=TCPService(SERVER, after=("redis",))),
            "shop.Case.api.after: it names 'redis', but there is no such service (there are api)",
        )

    def test_a_reference_to_what_is_no_attribute(self) -> None:
        self.assertEqual(
            self.refused(api=TCPService(SERVER, after=(TCPService("redis {port}"),))),
            "shop.Case.api.after: it names a TCPService ('redis {port}') that is no attribute of this class: declare that "
            "as one, too",
        )

    def test_a_text_in_place_of_a_sequence(self) -> None:
        with self.assertRaisesRegex(errors.DeclarationError, r"after: 'redis' is no sequence .*: write \('redis',\)"):
            TCPService(SERVER, after="redis")

    def test_services_that_wait_for_each_other(self) -> None:
        self.assertIn(
            self.refused(a=TCPService("a {port} {b.port}"), b=TCPService("b {port}", after=("c",)), c=says("{a.port}")),
            {f"shop.Case.{x}: its services wait for each other: {x}, which needs {y}, which needs {z}, which needs {x}: "
             "none of them can be the first" for x, y, z in ("abc", "bca", "cab")},
        )  # fmt: skip

    def test_a_service_that_needs_one_which_ends_sooner(self) -> None:
        self.assertEqual(
            self.refused(redis=TCPService(SERVER), api=TCPService("a {port} {redis.port}", scope="session")),
            "shop.Case.api.scope: it is 'session', but it needs redis, which ends sooner, as its scope is 'class': give "
            "redis the same scope, or a wider one",
        )

    def test_an_attribute_of_the_other_kind_of_mixin(self) -> None:
        self.assertEqual(
            self.refused(service_command="redis-server"),
            "shop.Case.service_command: that is an attribute of the mixins for one service, as TCPServiceMixin, which this "
            "class has not: derive from one of them, or write it into a declaration: TCPService(..., command=...)",
        )
        with self.assertRaises(errors.DeclarationError) as caught:
            type("Case", (TCPServiceMixin,), {"__module__": "shop", "service": TCPService(SERVER)})
        self.assertEqual(
            str(caught.exception),
            "shop.Case.service: with TCPServiceMixin it is made of the attributes service_...: rename this one",
        )

    def test_two_mixins_for_one_service(self) -> None:
        with self.assertRaises(errors.DeclarationError) as caught:
            type("Case", (TCPServiceMixin, OutputServiceMixin), {"__module__": "shop"})
        self.assertEqual(
            str(caught.exception),
            "shop.Case: TCPServiceMixin and OutputServiceMixin have one service each, called 'service': declare the others",
        )

    def test_something_that_takes_the_place_of_a_service(self) -> None:
        base = type("Base", (ServicesMixin,), {"redis": TCPService(SERVER)})
        with self.assertRaises(errors.DeclarationError) as caught:
            type("Case", (base,), {"__module__": "shop", "redis": "127.0.0.1:6379"})
        self.assertEqual(
            str(caught.exception),
            "shop.Case.redis: it takes the place of a service, but is '127.0.0.1:6379': only None removes one",
        )

    def test_an_asynchronous_function_for_which_nobody_would_wait(self) -> None:
        async def empty(executor) -> None: ...

        for option in ("reset", "probe"):
            with self.assertRaises(errors.DeclarationError) as caught:
                TCPService(SERVER, **{option: empty})
            self.assertEqual(
                str(caught.exception),
                f"TCPService.{option}: empty() is asynchronous, and nobody would wait for it: make it an ordinary function "
                "(asyncio.run() can be in there)",
            )

    def test_a_word_that_is_no_choice(self) -> None:
        for option, text in (
            (
                "scope",
                """it is 'sesion', but can only be "test" or "class" or "module" or "session"; did you mean session?""",
            ),
            ("restart", """it is 'sesion', but can only be "never" or "on_crash" or "test\""""),
        ):
            with self.assertRaises(errors.DeclarationError) as caught:
                TCPService(SERVER, **{option: "sesion"})
            self.assertEqual(str(caught.exception), f"TCPService.{option}: {text}")

    def test_a_name_that_every_test_has(self) -> None:
        for name in ("run", "id", "test_server"):
            self.assertEqual(
                self.refused(**{name: TCPService(SERVER)}),
                f"shop.Case.{name}: a TCPService cannot have the name of a test, or of what every test has: rename it",
            )

    def test_a_removed_service_that_another_one_needs(self) -> None:
        redis = TCPService(SERVER)

        class Base(ServicesMixin):
            cache = redis
            api = TCPService(SERVER, after=(redis,))

        with self.assertRaisesRegex(errors.DeclarationError, "it names 'cache', but there is no such service"):
            type("Case", (Base,), {"cache": None})


class DependenciesTests(MixinCase):
    kept_logs = 0

    def test_a_service_that_names_another_is_told_where_that_is(self) -> None:
        class Case(ServicesMixin):
            api = says("{cache.port}", "{job.tmp}", env={"U": "{unix.socket}", "P": "{pid.pid_file}"})
            cache = TCPService(SERVER)
            job = says()
            unix = UnixSocketService(python(UNIX_SERVER, "{tmp}/s"), socket="{tmp}/s")
            pid = PidService("sh -c 'echo $$ >{tmp}/p; exec sleep 300'", pid_file="{tmp}/p")

            def test(self) -> None:
                self.assertIn(f"begin {self.cache.port} {self.job.tmp}", self.api.tail())
                self.assertEqual(self.api.envvars["U"], self.unix.socket)
                self.assertEqual(self.api.envvars["P"], self.pid.filename)

        self.assert_passes(Case)

    def test_a_replaced_service_is_the_one_that_is_meant(self) -> None:
        redis = TCPService(SERVER)

        class Base(ServicesMixin):
            cache = redis
            api = says("{cache.port}", after=(redis,))

        class Case(Base):
            cache = redis.replace(env={"A": "b"})

            def test(self) -> None:
                self.assertIn(str(self.cache.port), self.api.tail())

        self.assert_passes(Case)

    def test_those_that_do_not_need_each_other_start_and_stop_side_by_side(self) -> None:
        # Each is ready, and ends, only when all others have come so far, too.
        meeting, parting = threading.Barrier(3, timeout=20), threading.Barrier(3, timeout=20)
        stop = "echo x > {tmp}/stop"

        def meet(executor) -> bool:
            meeting.wait()
            return True

        class Case(ServicesMixin):
            a = CommandService("sleep 300", check="true", probe=meet)
            b = CommandService("sleep 300", check="true", probe=meet)
            c = CommandService("sleep 300", check="true", probe=meet)

            def test(self) -> None:
                for service in (self.a, self.b, self.c):
                    original = service.stop
                    service.stop = lambda original=original: (parting.wait(), original())

        del stop
        self.assert_passes(Case)

    def test_what_another_needs_is_ready_first_and_stops_last(self) -> None:
        order = []

        class Case(ServicesMixin):
            api = CommandService(
                "sleep 300", check="true", after=("cache",), probe=lambda _: order.append("api") or True
            )
            cache = CommandService("sleep 300", check="true", probe=lambda _: order.append("cache") or True)

            def test(self) -> None:
                for name in ("api", "cache"):
                    service = getattr(self, name)
                    service.stop = lambda name=name, stop=service.stop: (order.append(f"{name} stops"), stop())

        self.assert_passes(Case)
        self.assertEqual(order, ["cache", "api", "api stops", "cache stops"])


class FailuresTests(MixinCase):
    def test_the_log_that_an_error_names_is_there_afterwards(self):
        class Case(ServicesMixin, unittest.TestCase):
            broken = OutputService("sh -c 'echo oh; exit 3'", banner="ready")

            def test_that_is_not_run(self):
                pass

        path = re.search("log: (.*)", self.the_error(Case))[1]
        with open(path) as file:
            self.assertEqual(file.read(), "oh\n")

    def test_what_needs_one_that_failed_is_never_started_and_the_rest_is_stopped(self) -> None:
        pids = []

        class Case(ServicesMixin):
            good = CommandService("sleep 300", check="true", probe=lambda it: pids.append(it.pid) or True)
            bad = TCPService([*EXIT_3, "{port}"], after=(good,))
            never = CommandService(
                "sleep 300", check="true", after=(bad,), probe=lambda it: pids.append("never") or True
            )

            def test(self) -> None:
                raise AssertionError("must not run")

        # It may have ended before it was asked for the first time.
        error = self.the_error(Case).replace("  last refusal: connection refused\n", "")
        self.assertEqual(
            re.sub(r" \d{5}\n", " PORT\n", masked(error.replace(f"{Case.__module__}.{Case.__qualname__}", "shop.Case"))),
            "caseexec.errors.ProcessExitedWithError: shop.Case.bad exited with status 3 after "
            + error.partition(" after ")[2].partition(" s,")[0] + " s, before it was ready\n"
            f"  command: {masked(EXIT_3_COMMAND)} PORT\n"
            "  waiting for: a TCP connection to 127.0.0.1:PORT\n"
            "  log: LOG\n"
            "  last output:\n"
            "    it hurts\n",
        )  # fmt: skip
        self.assertFalse(any(map(alive, pids)))
        self.assertEqual(len(pids), 1)

    def test_the_first_error_carries_the_others(self) -> None:
        # Each fails only when the other one has come so far, too.
        meeting = threading.Barrier(2, timeout=20)

        def mistake(executor) -> bool:
            meeting.wait()
            raise TypeError(f"a mistake in {executor.program}")

        class Case(ServicesMixin):
            a = CommandService("sleep 300", check="true", probe=mistake)
            b = CommandService("cat", check="true", probe=mistake)

            def test(self) -> None:
                raise AssertionError("must not run")

        first, second = self.the_error(Case).partition("And also:\nTypeError: ")[::2]
        self.assertEqual({"in sleep" in first, "in cat" in first}, {True, False})
        self.assertIn("a mistake in ", second)

    def test_others_that_are_under_way_are_not_waited_for(self) -> None:
        started = threading.Event()

        def never(executor) -> bool:
            started.set()
            return False

        def fail(executor) -> bool:
            started.wait(20)
            raise TypeError("a mistake")

        class Case(ServicesMixin):
            slow = CommandService("sleep 300", check="true", probe=never, start_timeout=300)
            bad = CommandService("sleep 300", check="true", probe=fail)

            def test(self) -> None:
                raise AssertionError("must not run")

        before = time.monotonic()
        self.assertIn("TypeError: a mistake", self.the_error(Case))
        self.assertLess(time.monotonic() - before, 60)

    def test_a_shared_one_whose_start_was_cancelled_is_started_for_the_next_class(self) -> None:
        self.addCleanup(shared._end_run, os.getpid())
        started, ready = threading.Event(), []

        def slow(executor) -> bool:
            started.set()
            return bool(ready)

        def fail(executor) -> bool:
            started.wait(20)
            raise TypeError("a mistake")

        class First(ServicesMixin):
            waits = CommandService("sleep 300", check="true", probe=slow, scope="session")
            bad = CommandService("sleep 300", check="true", probe=fail)

            def test(self) -> None:
                self.assertTrue(self.waits.running())

        class Second(First):
            bad = None

        self.assertIn("TypeError: a mistake", self.the_error(First))
        ready.append(True)
        self.assert_passes(Second)

    def test_an_interrupt_while_they_start_side_by_side_leaves_nothing(self) -> None:
        pids, numbers = [], itertools.count(1)

        def interrupt(executor) -> bool:
            pids.append(executor.pid)
            if next(numbers) == 2:  # Exactly one of them has it.
                os.kill(os.getpid(), signal.SIGINT)
            return False

        class Case(ServicesMixin):
            a = CommandService("sleep 300", check="true", probe=interrupt)
            b = CommandService("sleep 300", check="true", probe=interrupt)

            def test(self) -> None:
                raise AssertionError("must not run")

        with self.assertRaises(KeyboardInterrupt):
            self.run_class(Case)
        self.assertFalse(any(map(alive, pids)))
        self.assertEqual(os.listdir(self.path("tmp")), [])

    def test_all_stops_that_go_wrong_are_told(self) -> None:
        exits = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done"

        class Case(ServicesMixin):
            a = OutputService(exits, shell=True, banner="ready")
            b = OutputService(exits, shell=True, banner="ready", after=(a,))
            good = TCPService(SERVER)

            def test(self) -> None:
                self.good.running()

        error = self.the_error(Case)
        self.assertIn("Case.b exited with status 7 when it was stopped", error)
        self.assertIn("And also:\nProcessFinishedWithError: ", error)
        self.assertIn("Case.a exited with status 7 when it was stopped", error)


class IsolationTests(MixinCase):
    def test_reset_is_called_before_each_test(self) -> None:
        calls = []

        class Case(ServicesMixin):
            server = TCPService(SERVER, reset=lambda executor: calls.append(executor.port))

            def setUp(self) -> None:
                calls.append("set-up")

            def test_a(self) -> None:
                calls.append("a")

            def test_b(self) -> None:
                calls.append("b")

            @unittest.skip("not today")
            def test_c(self) -> None:
                pass

        self.assert_passes(Case)
        port = calls[0]
        self.assertEqual(calls, [port, "set-up", "a", port, "set-up", "b"])

    def test_a_reset_that_fails_is_the_tests_error(self) -> None:
        class Case(ServicesMixin):
            server = TCPService(SERVER, reset=lambda executor: 1 / 0)

            def test(self) -> None:
                raise AssertionError("must not run")

        error = self.the_error(Case)
        self.assertIn("ZeroDivisionError: division by zero\nserver could not be reset before Case.test.\n", error)

    def test_the_next_test_meets_a_ready_service_whatever_was_done_to_it(self) -> None:
        seen = []

        class Case(ServicesMixin):
            server = TCPService(SERVER)

            def setUp(self) -> None:
                seen.append((self.server.pid, self.server.port, self.server.tmp))
                socket.create_connection((self.server.host, self.server.port)).close()

            def test_a(self) -> None:
                self.server.kill()

            def test_b(self) -> None:
                self.server.kill(wait=False)

            def test_c(self) -> None:
                self.server.stop()

            def test_d(self) -> None:
                with self.assertRaises(ZeroDivisionError), self.server.stopped():
                    1 / 0
                with self.assertRaises(ZeroDivisionError), self.server.paused():
                    1 / 0
                socket.create_connection((self.server.host, self.server.port)).close()

            def test_e(self) -> None:
                self.server.restart()

        self.assert_passes(Case)
        self.assertEqual(len({pid for pid, _, _ in seen}), 5)
        self.assertEqual(len({(port, tmp) for _, port, tmp in seen}), 1)

    def test_a_service_may_be_new_for_each_test(self) -> None:
        pids = []

        class Case(ServicesMixin):
            server = TCPService(SERVER, restart="test")

            def test_a(self) -> None:
                pids.append(self.server.pid)

            test_b = test_c = test_a

        self.assert_passes(Case)
        self.assertEqual(len(set(pids)), 3)

    def test_two_attributes_that_share_one_treat_it_once(self) -> None:
        self.addCleanup(shared._end_run, os.getpid())
        calls = []

        class Case(ServicesMixin):
            a = says(scope="session", restart="test", reset=calls.append)
            b = a.replace()

            def test_a(self) -> None:
                self.assertIs(self.a, self.b)
                pids.append(self.a.pid)

            def test_b(self) -> None:
                pids.append(self.a.pid)
                self.fail("no")

        pids = []
        (failure,) = the_notes(self.run_class(Case))
        self.assertEqual((len(calls), len(set(pids))), (2, 2))
        self.assertEqual(failure.count("(/"), 1)

    def test_in_a_pause_it_is_there_and_does_not_answer(self) -> None:
        class Case(ServicesMixin):
            server = TCPService(SERVER)

            def test(self) -> None:
                with self.server.paused():
                    self.assertTrue(self.server.running())
                    with socket.create_connection((self.server.host, self.server.port)) as client:
                        client.settimeout(0.05)
                        with self.assertRaises(TimeoutError):
                            client.recv(1)
                        self.server.process.send_signal(signal.SIGCONT)
                        client.settimeout(20)
                        self.assertEqual(client.recv(1), b"")

        self.assert_passes(Case)

    def test_what_died_in_a_pause_is_told(self) -> None:
        class Case(ServicesMixin):
            server = TCPService(SERVER)

            def test(self) -> None:
                with self.server.paused():
                    crash(self.server, signal.SIGKILL)

        self.assertIn("Case.server was killed by SIGKILL after", self.the_error(Case))

    def test_a_restart_that_fails_is_told_once(self) -> None:
        class Case(ServicesMixin):
            server = OutputService("sh -c '[ -e {tmp}/x ] && exit 3; touch {tmp}/x; echo ready; exec sleep 300'",
                                   banner="ready", restart="test")  # fmt: skip

            def test_a(self) -> None:
                pass

            test_b = test_c = test_a

        first, second = the_notes(self.run_class(Case))
        self.assertIn("Case.server exited with status 3", first)
        self.assertEqual(second, "caseexec.errors.ServiceUnavailable: server could not be started again "
                         "(ProcessExitedWithError); the error of Case.test_b tells all\n")  # fmt: skip


class CrashTests(MixinCase):
    def test_a_crash_is_told_once_and_in_one_line_later_on(self) -> None:
        class Case(ServicesMixin):
            redis = says()

            def test_a(self) -> None:
                pass

            def test_b(self) -> None:
                crash(self.redis)

            def test_c(self) -> None:
                raise AssertionError("must not run")

            test_d = test_e = test_c

        result = self.run_class(Case)
        told, *later = the_notes(result)
        where = f"{Case.__module__}.{Case.__qualname__}"
        self.assertEqual(
            masked(told.replace(where, "shop.Case")),
            "caseexec.errors.ServiceDied: redis was killed by SIGSEGV during Case.test_b\n"
            "  A test that ends it on purpose uses its kill(), stopped() or restart(); one that may crash has "
            "shop.Case.redis.restart = 'on_crash'.\n"
            f"  command: {masked(COMMAND_OF_SAYS)} TMP\n"
            "  log: LOG\n"
            "  last output:\n"
            "    begin\n",
        )
        line = "caseexec.errors.ServiceUnavailable: redis was killed by SIGSEGV during Case.test_b; the error of Case.test_c tells all\n"
        self.assertEqual(later, [line] * 2)
        self.assertEqual((result.testsRun, len(result.errors)), (5, 3))

    def test_one_that_dies_during_a_failing_test_is_in_its_note(self) -> None:
        class Case(ServicesMixin):
            redis = says(restart="on_crash")

            def test(self) -> None:
                say(self.redis, "about to crash")
                crash(self.redis)
                self.fail("connection refused")

        result, caught = run_class(Case)
        (failure,) = the_notes(result)
        self.assertEqual(
            masked(failure.partition("AssertionError: ")[2]),
            "connection refused\nWhat its services wrote during this test:\n"
            "  redis, which was killed by SIGSEGV (LOG):\n    about to crash\n",
        )
        (warning,) = caught
        self.assertEqual(
            str(warning.message), "redis was killed by SIGSEGV during Case.test; it was not needed any more"
        )

    def test_a_connection_that_was_lost_has_the_note_wait_a_moment_for_the_death(self) -> None:
        class Case(ServicesMixin):
            redis = CommandService("sh -c 'until [ -e {tmp}/die ]; do :; done; kill -ABRT $$'", check="true",
                                   restart="on_crash")  # fmt: skip

            def test(self) -> None:
                open(f"{self.redis.tmp}/die", "w").close()
                try:
                    raise ConnectionResetError("by peer")
                except ConnectionError as error:
                    raise ValueError("a client's own error") from error

        with mock.patch("caseexec.scopes.watches._DYING", 20.0):
            result, caught = run_class(Case)
        (error,) = the_notes(result)
        self.assertIn("  redis, which was killed by SIGABRT: nothing\n", error)
        self.assertEqual(len(caught), 1)

    def test_one_that_may_crash_is_started_again_with_a_warning(self) -> None:
        pids = []

        class Case(ServicesMixin):
            redis = says(restart="on_crash")

            def test_a(self) -> None:
                pids.append(self.redis.pid)
                crash(self.redis)

            def test_b(self) -> None:
                pids.append(self.redis.pid)

        result, caught = run_class(Case)
        self.assertTrue(result.wasSuccessful())
        self.assertEqual(len(set(pids)), 2)
        (warning,) = caught
        self.assertIsInstance(warning.message, errors.CrashWarning)
        self.assertEqual(str(warning.message), "redis was killed by SIGSEGV during Case.test_a; it was started again")

    def test_where_warnings_are_errors_the_next_test_meets_it_ready(self) -> None:
        class Case(ServicesMixin):
            redis = says(restart="on_crash")

            def test_a(self) -> None:
                crash(self.redis)

            def test_b(self) -> None:
                pass

            def test_c(self) -> None:
                self.assertTrue(self.redis.running())

        result = unittest.TestResult()
        with warnings.catch_warnings():
            warnings.simplefilter("error", errors.CrashWarning)
            unittest.defaultTestLoader.loadTestsFromTestCase(Case).run(result)
        (error,) = the_notes(result)
        self.assertIn("CrashWarning: redis was killed by SIGSEGV during Case.test_a; it was started again", error)

    def test_a_death_in_the_last_test_is_the_classes_error_whatever_its_status(self) -> None:
        for number, told in ((signal.SIGSEGV, "SIGSEGV"), (signal.SIGTERM, "SIGTERM")):

            class Case(ServicesMixin):
                redis = says()

                def test(self, number=number) -> None:
                    crash(self.redis, number)

            with self.subTest(told):
                self.assertIn(f"ServiceDied: redis was killed by {told} during Case.test\n", self.the_error(Case))

    def test_one_that_has_left_for_elsewhere_is_not_watched(self) -> None:
        class Case(ServicesMixin):
            # Not before it has left: a command that ends while it is watched has died.
            container = OutputService("echo started", banner="started", probe=lambda it: it.exit_code() == 0)

            def test_a(self) -> None:
                self.assertFalse(self.container.has_died())

            test_b = test_a

        self.assert_passes(Case)

    def test_one_that_leaves_when_it_was_ready_has_died_only_if_its_service_does_not_answer(self) -> None:
        for answers in (True, False):
            with self.subTest(answers=answers), socket.create_server(("127.0.0.1", 0)) as elsewhere:

                class Case(ServicesMixin):
                    container = TCPService("sh -c 'until [ -e {tmp}/up ]; do sleep 0.01; done'",
                                           port=elsewhere.getsockname()[1], listener="any")  # fmt: skip

                    def test(self, answers=answers, elsewhere=elsewhere) -> None:
                        self.assertFalse(self.container.has_died())
                        open(f"{self.container.tmp}/up", "w").close()
                        os.waitid(os.P_PID, self.container.pid, os.WEXITED | os.WNOWAIT)
                        if not answers:
                            elsewhere.close()
                        self.assertEqual(self.container.has_died(), not answers)

                if answers:
                    self.assert_passes(Case)
                else:
                    told = "ServiceDied: container exited with status 0 during Case.test\n"
                    self.assertIn(told, self.the_error(Case))

    def test_whether_its_service_answers_is_asked_once(self) -> None:
        class Case(ServicesMixin):
            worker = CommandService("sh -c 'until [ -e {tmp}/over ]; do sleep 0.01; done'",
                                    check="sh -c 'echo >>{tmp}/looks; [ ! -e {tmp}/over ]'")  # fmt: skip

            def test(self) -> None:
                looks = os.stat(f"{self.worker.tmp}/looks").st_size
                open(f"{self.worker.tmp}/over", "w").close()
                os.waitid(os.P_PID, self.worker.pid, os.WEXITED | os.WNOWAIT)
                self.assertEqual([self.worker.has_died(), self.worker.has_died()], [True, True])
                self.assertEqual(os.stat(f"{self.worker.tmp}/looks").st_size, looks + 1)

        with mock.patch.object(waiting, "_LAST_LOOK", 60):
            self.assertIn("ServiceDied: worker exited with status 0 during Case.test\n", self.the_error(Case))


class WordsTests(MixinCase):
    def test_a_failure_tells_what_was_written_since_the_test_began(self) -> None:
        class Case(ServicesMixin):
            redis = says("at its start")
            quiet = CommandService("sleep 300", check="true")

            def test_a(self) -> None:
                say(self.redis, "in the first")

            def test_b(self) -> None:
                say(self.redis, "in the second \033[1m")
                self.fail("no")

            def test_c(self) -> None:
                with self.subTest("sub"):
                    self.fail("no")
                raise KeyError("x")

        texts = [masked(text) for text in the_notes(self.run_class(Case))]
        self.assertEqual(len(texts), 3)
        self.assertEqual({text.partition("KeyError: ")[2] or text.partition("AssertionError: ")[2] for text in texts}, {
            "no\nWhat its services wrote during this test:\n  redis (LOG):\n    in the second \\x1b[1m\n  quiet: nothing\n",
            "no\nWhat its services wrote during this test:\n  redis (LOG): nothing\n  quiet: nothing\n",
            "'x'\nWhat its services wrote during this test:\n  redis (LOG): nothing\n  quiet: nothing\n",
        })  # fmt: skip
        self.assertEqual(len(os.listdir(self.path("tmp"))), 1, "the log that is named stays")

    def test_an_error_in_the_set_up_of_a_base_tells_it_too(self) -> None:
        class Base(unittest.TestCase):
            @classmethod
            def setUpClass(cls) -> None:
                say(cls.redis, "in the set-up")
                raise KeyError("x")

        class Case(ServicesMixin, Base):
            redis = says()

            def test(self) -> None:
                raise AssertionError("must not run")

        self.assertEqual(
            masked(self.the_error(Case).partition("KeyError: ")[2]),
            "'x'\nWhat its services wrote during Case.setUpClass:\n  redis (LOG):\n    begin\n    in the set-up\n",
        )

    def test_a_class_whose_own_set_up_failed_tells_what_they_wrote_once(self) -> None:
        class Base(ServicesMixin):
            redis = says()

            @classmethod
            def setUpClass(cls) -> None:
                super().setUpClass()
                say(cls.redis, "in the set-up")
                raise KeyError("x")

        class Case(Base):
            @classmethod
            def setUpClass(cls) -> None:
                super().setUpClass()

            def test(self) -> None:
                raise AssertionError("must not run")

        result, (warning,) = run_class(Case)
        self.assertEqual(
            masked(result.errors[0][1].partition("KeyError: ")[2]),
            "'x'\nWhat its services wrote during Case.setUpClass:\n  redis (LOG):\n    begin\n    in the set-up\n",
        )
        self.assertRegex(
            masked(str(warning.message)), r"setUpClass failed after the service had started \(see LOG\)\.$"
        )
        self.assertEqual(len(os.listdir(self.path("tmp"))), 1)

    def test_a_class_whose_own_set_up_skips_it_leaves_no_log_and_warns_of_nothing(self) -> None:
        class Case(ServicesMixin):
            redis = says()

            @classmethod
            def setUpClass(cls) -> None:
                super().setUpClass()
                raise unittest.SkipTest("too old")

            def test(self) -> None:
                raise AssertionError("must not run")

        self.assertEqual(len(self.run_class(Case).skipped), 1)
        self.assertEqual(os.listdir(self.path("tmp")), [])

    def test_it_is_forty_lines_and_eight_kibibytes_at_most(self) -> None:
        class Case(ServicesMixin):
            redis = says()

            def test_lines(self) -> None:
                say(self.redis, "\n".join(f"line {number}" for number in range(100)))
                self.fail("no")

            def test_bytes(self) -> None:
                say(self.redis, "x" * 20_000 + "end")
                self.fail("no")

        lengths, lines = the_notes(self.run_class(Case))
        self.assertIn("[... 470 bytes before]\n    line 60\n", lines)
        self.assertEqual(lines.count("    line "), 40)
        self.assertIn("line 99\n", lines)
        self.assertLess(len(lengths), 10_000)
        self.assertIn("xend\n", lengths)

    def test_a_passing_class_leaves_no_log(self) -> None:
        class Case(ServicesMixin):
            redis = says()

            def test(self) -> None:
                self.assertTrue(os.path.exists(self.redis.log_path))

        self.assert_passes(Case)
        self.assertEqual(os.listdir(self.path("tmp")), [])

    def test_the_log_goes_on_over_a_restart(self) -> None:
        class Case(ServicesMixin):
            redis = says()

            def test(self) -> None:
                mark = self.redis.output_mark()
                say(self.redis, "before")
                self.redis.restart()
                say(self.redis, "after")
                self.assertEqual(self.redis.output_since(mark).split(), ["before", "begin", "after"])
                self.assertEqual(self.redis.tail().split(), ["begin", "after"])

        self.assert_passes(Case)

    def test_a_log_that_somebody_has_removed_begins_again(self) -> None:
        class Case(ServicesMixin):
            redis = says()

            def test(self) -> None:
                os.unlink(self.redis.log_path)
                say(self.redis, "into nowhere, and still read")
                self.redis.restart()
                self.assertEqual(self.redis.tail().split(), ["begin"])
                self.assertTrue(os.path.exists(self.redis.log_path))

        self.assert_passes(Case)

    def test_an_error_that_takes_no_note_is_told_as_it_is(self) -> None:
        class NoNotes(Exception):
            def add_note(self, note: str) -> None:
                raise TypeError("no notes")

        class Case(ServicesMixin):
            redis = says()

            def test_a(self) -> None:
                raise NoNotes("the real one")

            def test_b(self) -> None:
                error = ValueError("the real one")
                error.__notes__ = None
                raise error

        for text in the_notes(self.run_class(Case)):
            self.assertIn("the real one", text)

    def test_a_lost_connection_in_a_group_is_one(self) -> None:
        group = ExceptionGroup("tasks", [ValueError(), ExceptionGroup("more", [ConnectionResetError()])])
        self.assertTrue(any(isinstance(one, ConnectionError) for one in results._chain(group)))

    def test_a_test_can_be_pickled_while_it_runs(self) -> None:
        import pickle

        class Case(ServicesMixin):
            redis = says()

            def test(self) -> None:
                with self.subTest("one"):
                    for again in (
                        pickle.loads(pickle.dumps(self)),
                        pickle.loads(pickle.dumps(self._subtest)).test_case,
                    ):
                        again.setUp()
                        self.assertIs(again._outcome.result, False)

        class Result(unittest.TestResult):
            def __reduce__(self):
                return bool, ()

        Case.__qualname__ = "Case"  # By which pickle finds it again.
        result = Result()
        with mock.patch.object(sys.modules[__name__], "Case", Case, create=True):
            unittest.TestSuite([Case("test")]).run(result)
        self.assertEqual((result.testsRun, [*the_notes(result)]), (1, []))

    def test_a_copy_of_a_running_service_is_that_service(self) -> None:
        import copy

        class Case(ServicesMixin):
            redis = says()

            def test(self) -> None:
                for again in (copy.copy(self.redis), copy.deepcopy({"redis": self.redis})["redis"]):
                    self.assertIs(again, self.redis)

        self.assert_passes(Case)

    def test_a_result_without_subtests_works_too(self) -> None:
        class Result(unittest.TestResult):
            addSubTest = property()

        class Case(ServicesMixin):
            redis = says()

            def test(self) -> None:
                with self.subTest("sub"):
                    self.fail("no")

        result = Result()
        unittest.defaultTestLoader.loadTestsFromTestCase(Case).run(result)
        self.assertIn("What its services wrote", the_notes(result)[0])


class ScopesTests(MixinCase):
    def setUp(self) -> None:
        super().setUp()
        self.addCleanup(shared._end_run, os.getpid())

    def test_a_session_is_shared_by_equal_declarations(self) -> None:
        seen = []

        class First(ServicesMixin):
            server = TCPService(SERVER, scope="session")
            same = TCPService(SERVER, scope="session")

            def test(self) -> None:
                seen.append(self.server)
                self.assertIs(self.server, self.same)

        class Second(ServicesMixin):
            other = TCPService(SERVER, scope="session")

            def test(self) -> None:
                seen.append(self.other)

        class Third(ServicesMixin):
            other = TCPService(SERVER, scope="session", env={"A": "b"})

            def test(self) -> None:
                seen.append(self.other)

        for case in (First, Second, Third):
            self.assert_passes(case)
        self.assertIs(seen[0], seen[1])
        self.assertIsNot(seen[0], seen[2])
        self.assertTrue(seen[0].running() and seen[2].running())
        shared._end_run(os.getpid())
        self.assertFalse(seen[0].running() or seen[2].running())

    def test_those_that_need_another_one_are_not_equal(self) -> None:
        seen = []

        class First(ServicesMixin):
            cache = TCPService(SERVER, scope="session")
            api = says("{cache.port}", scope="session")

            def test(self) -> None:
                seen.append(self.api)
                self.assertIn(str(self.cache.port), self.api.tail())

        class Second(First):
            cache = TCPService(SERVER, scope="session", env={"A": "b"})

        self.assert_passes(First)
        self.assert_passes(Second)
        self.assertIsNot(*seen)

    def test_each_test_may_have_its_own(self) -> None:
        seen = []

        class Case(ServicesMixin):
            server = TCPService(SERVER, scope="test")
            api = says("{server.port}", scope="test")

            @classmethod
            def setUpClass(cls) -> None:
                super().setUpClass()
                try:
                    _ = cls.server
                except errors.ServiceNotStarted as error:
                    seen.append(str(error))

            def test_a(self) -> None:
                seen.append(self.server.pid)
                self.assertIn(str(self.server.port), self.api.tail())

            def test_b(self) -> None:
                seen.append(self.server.pid)

            @unittest.skip("not today")
            def test_c(self) -> None:
                pass

        self.assert_passes(Case)
        why, first, second = seen
        self.assertTrue(why.endswith(
            "Case.server: it runs during each test only, as its scope is 'test': use it in setUp or in a test."), why)  # fmt: skip
        self.assertNotEqual(first, second)
        self.assertFalse(alive(first) or alive(second))

    def test_one_of_each_test_that_cannot_start_is_told_once(self) -> None:
        class Case(ServicesMixin):
            server = TCPService("no-such-program {port}", scope="test")

            def test_a(self) -> None:
                raise AssertionError("must not run")

            test_b = test_a

        first, second = the_notes(self.run_class(Case))
        self.assertIn("there is no program 'no-such-program'", first)
        self.assertEqual(second, "caseexec.errors.ServiceUnavailable: the services for each test could not be started "
                         "(CommandNotFound); the error of Case.test_a tells all\n")  # fmt: skip

    def test_a_module_is_over_when_its_last_class_has_run(self) -> None:
        seen = []

        def test(self) -> None:
            seen.append(self.server)

        def case(name: str, module: str, **attributes) -> type[ServicesMixin]:
            server = TCPService(SERVER, scope="module")
            return type(name, (ServicesMixin,), {"__module__": module, "server": server, **attributes})

        first, second, other = (
            case("First", "a", test=test),
            case("Second", "a", test=test),
            case("Other", "b", test=test),
        )
        base, skipped = case("Base", "a"), unittest.skip("not today")(case("Skipped", "a", test=test))
        self.assert_passes(first)
        self.assertTrue(seen[0].running(), "its second class is still to come")
        self.assert_passes(second)
        self.assertIs(seen[0], seen[1])
        self.assertFalse(seen[0].running())
        self.assert_passes(other)
        self.assertIsNot(seen[1], seen[2])
        del base, skipped

    def test_a_module_whose_last_class_is_not_run_is_over_when_another_begins(self) -> None:
        seen = []

        def case(name: str, module: str) -> type[ServicesMixin]:
            server = TCPService(SERVER, scope="module")
            attributes = {"__module__": module, "server": server, "test": lambda self: seen.append(self.server)}
            return type(name, (ServicesMixin,), attributes)

        first, deselected, other = case("First", "c"), case("Deselected", "c"), case("Other", "d")
        self.assert_passes(first)
        self.assertTrue(seen[0].running())
        self.assert_passes(other)
        self.assertFalse(seen[0].running())
        self.assertFalse(hasattr(deselected, "server"))

    def test_an_end_that_goes_wrong_is_no_error_of_the_next_module(self) -> None:
        def case(name: str, module: str, **attributes) -> type[ServicesMixin]:
            attributes |= {"__module__": module, "test": lambda self: None}
            return type(name, (ServicesMixin,), attributes)

        exits = OutputService("trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done", shell=True,
                              banner="ready", scope="module")  # fmt: skip
        first, deselected = case("First", "e", server=exits), case("Deselected", "e", server=exits)
        self.assert_passes(first)
        result, (warning,) = run_class(case("Other", "f"))
        self.assertTrue(result.wasSuccessful())
        self.assertIn("ProcessFinishedWithError: e.First.server exited with status 7", str(warning.message))
        del deselected

    def test_a_module_ends_also_when_the_set_up_of_its_last_class_fails(self) -> None:
        class Case(ServicesMixin):
            server = TCPService(SERVER, scope="module")

            @classmethod
            def setUpClass(cls) -> None:
                super().setUpClass()
                seen.append(cls.server)
                raise KeyError("x")

            def test(self) -> None:
                raise AssertionError("must not run")

        seen = []
        Case.__module__ = "g"
        Case.__init_subclass__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", errors.LeakedProcessWarning)
            self.assertEqual(len(the_notes(run_class(Case)[0])), 1)
        self.assertFalse(seen[0].running())

    def test_one_that_could_not_be_started_is_not_tried_again(self) -> None:
        class First(ServicesMixin):
            server = TCPService("no-such-program {port}", scope="session")

            def test(self) -> None:
                raise AssertionError("must not run")

        class Second(First):
            pass

        self.assertIn("there is no program 'no-such-program'", self.the_error(First))
        where = f"{First.__module__}.{First.__qualname__}"
        self.assertEqual(
            self.the_error(Second).replace(where, "shop.First"),
            "caseexec.errors.ServiceUnavailable: shop.First.server could not be started (CommandNotFound); the error of "
            "First.setUpClass tells all\n",
        )

    def test_one_that_died_is_the_error_of_the_next_class_or_started_again(self) -> None:
        for restart in ("never", "on_crash"):

            class First(ServicesMixin):
                server = says(scope="session", restart=restart)

                def test(self) -> None:
                    crash(self.server)

            class Second(First):
                def test(self) -> None:
                    self.assertTrue(self.server.running())

                test_b = test

            with self.subTest(restart):
                self.assert_passes(First)
                result, caught = run_class(Second)
                if restart == "never":
                    (error,) = the_notes(result)
                    self.assertIn("ServiceDied: server was killed by SIGSEGV during First.test\n", error)
                    self.assertEqual(caught, [])
                    (error,) = the_notes(run_class(Second)[0])
                    self.assertIn("the error of Second.setUpClass tells all", error)
                else:
                    self.assertTrue(result.wasSuccessful())
                    self.assertEqual(len(caught), 1)

    def test_the_next_class_meets_it_ready_in_its_set_up_already(self) -> None:
        class First(ServicesMixin):
            server = TCPService(SERVER, scope="session")

            def test(self) -> None:
                self.server.kill()

        class Second(First):
            api = says("{server.port}")

            @classmethod
            def setUpClass(cls) -> None:
                super().setUpClass()
                socket.create_connection((cls.server.host, cls.server.port)).close()

        self.assert_passes(First)
        self.assert_passes(Second)

    def test_one_that_is_there_already_is_not_shared_under_another_name(self) -> None:
        seen = []

        class First(ServicesMixin):
            redis = TCPService(SERVER, scope="session")

            def test(self) -> None:
                seen.append(self.redis.port)

        class Second(ServicesMixin):
            cache = First.service_declarations()["redis"]

            def test(self) -> None:
                seen.append(self.cache.port)

        with TCPExecutor(python(CHOOSES, 0), "127.0.0.1", 1, port_pattern=PORT) as there:
            with mock.patch.dict(os.environ, {"CASEEXEC_USE_CACHE": there.address}):
                for case in (Second, First, Second):
                    self.assert_passes(case)
        self.assertEqual((seen[0], seen[2]), (there.port, there.port))
        self.assertNotEqual(seen[1], there.port)

    def test_a_module_ends_also_when_its_other_class_has_only_skipped_tests(self) -> None:
        seen = []

        def case(name: str, test) -> type[ServicesMixin]:
            server = TCPService(SERVER, scope="module")
            return type(name, (ServicesMixin,), {"__module__": "h", "server": server, "test": test})

        skipped = case("Skipped", unittest.skip("not today")(lambda self: None))
        run = case("Run", lambda self: seen.append(self.server))
        self.assertEqual(len(self.run_class(skipped).skipped), 1)
        self.assert_passes(run)
        self.assertFalse(seen[0].running())

    def test_a_forked_child_shares_nothing_with_its_parent(self) -> None:
        class Case(ServicesMixin):
            server = TCPService(SERVER, scope="session")

            def test(self) -> None:
                print(self.server.pid, flush=True)

        self.assert_passes(Case)
        (one,) = shared._shared
        child = os.fork()
        if child == 0:
            code = 1
            try:
                shared._end_run(os.getpid())
                code = 0 if shared.share(one.key, one.launch).watch is None else 2
            finally:
                os._exit(code)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)
        self.assertTrue(one.launch.executor.running())

    def test_a_class_whose_tests_are_all_skipped_starts_nothing(self) -> None:
        class Case(ServicesMixin):
            server = TCPService("no-such-program {port}")

            @unittest.skip("not today")
            def test_a(self) -> None:
                pass

            @unittest.skipIf(True, "nor ever")
            def test_b(self) -> None:
                pass

        self.assertEqual(len(self.run_class(Case).skipped), 2)

    def test_a_runner_that_knows_can_end_them(self) -> None:
        class Case(ServicesMixin):
            one, other = TCPService(SERVER, scope="module"), TCPService(SERVER, scope="session")

            def test(self) -> None:
                services[:] = self.one, self.other

        class NotRun(ServicesMixin):
            one = TCPService(SERVER, scope="module")

            def test(self) -> None:
                pass

        services = []
        self.assert_passes(Case)
        shared.end_modules()
        self.assertEqual([service.running() for service in services], [False, True])
        shared.end_run()
        self.assertFalse(services[1].running())

    def test_an_error_of_such_an_end_is_raised(self) -> None:
        class Case(ServicesMixin):
            server = says(scope="session")

            def test(self) -> None:
                crash(self.server)

        self.assert_passes(Case)
        with self.assertRaisesRegex(errors.ServiceDied, "^server was killed by SIGSEGV during Case.test\n"):
            shared.end_run()
        shared.end_run()

    def test_one_of_a_module_that_somebody_else_holds_outlasts_its_classes(self) -> None:
        class Case(ServicesMixin):
            server = TCPService(SERVER, scope="module")

            def test(self) -> None:
                (held,) = shared._shared
                held.holders += 1
                services.append(self.server)

        services = []
        self.assert_passes(Case)
        self.assertTrue(services[0].running())
        shared.end_modules()
        self.assertFalse(services[0].running())

    def test_a_death_that_nobody_met_is_told_at_the_end(self) -> None:
        class Case(ServicesMixin):
            server = says(scope="session")

            def test(self) -> None:
                crash(self.server)

        self.assert_passes(Case)
        with self.assertWarnsRegex(RuntimeWarning, "^ServiceDied: server was killed by SIGSEGV during Case.test\n"):
            shared._end_run(os.getpid())


class OneShotTests(MixinCase):
    kept_logs = None

    def test_what_needs_it_starts_when_it_has_done_its_work(self) -> None:
        class Case(ServicesMixin):
            keys = OneShot("sh -c 'echo made; echo secret > {tmp}/key; sleep 300 & exit 0'")
            api = OutputService("sh -c 'cat {keys.tmp}/key; exec sleep 300'", banner="secret")

            def test_a(self) -> None:
                self.assertEqual((self.keys.exit_code(), self.keys.running(), self.keys.living()), (0, False, []))
                self.assertEqual(self.keys.tail(), "made")

            test_b = test_a

        self.assert_passes(Case)

    def test_what_can_only_be_done_to_one_that_runs_is_refused(self) -> None:
        for option, value in (("reset", print), ("restart", "test")):
            with self.assertRaisesRegex(
                errors.DeclarationError, rf"^OneShot\.{option}: a OneShot has ended before the"
            ):
                OneShot("true", **{option: value})

    def test_it_runs_once_for_all_that_share_it(self) -> None:
        self.addCleanup(shared._end_run, os.getpid())
        path = self.path("count")

        class First(ServicesMixin):
            seed = OneShot(f"sh -c 'echo x >> {path}'", scope="session")

            def test(self) -> None:
                self.assertEqual(os.path.getsize(path), 2)

        class Second(First):
            pass

        self.assert_passes(First)
        self.assert_passes(Second)

    def test_one_that_fails_or_does_not_end_is_told(self) -> None:
        class Case(ServicesMixin):
            seed = OneShot(EXIT_3)

            def test(self) -> None:
                raise AssertionError("must not run")

        def told(case) -> str:
            text = masked(self.the_error(case).replace(f"{case.__module__}.{case.__qualname__}", "shop.Case"))
            return re.sub(r"\d\.\d\d s", "TIME", text)

        self.assertEqual(
            told(Case),
            "caseexec.errors.ProcessExitedWithError: shop.Case.seed exited with status 3 after TIME, before it was ready\n"
            f"  command: {masked(EXIT_3_COMMAND)}\n"
            "  waiting for: its end with status 0\n"
            "  log: LOG\n"
            "  last output:\n"
            "    it hurts\n",
        )

        class Case(ServicesMixin):
            seed = OneShot("sleep 300", start_timeout=0.1)

            def test(self) -> None:
                raise AssertionError("must not run")

        self.assertEqual(
            told(Case),
            "caseexec.errors.TimeoutExpired: shop.Case.seed timed out after 0.1 seconds: it was not ready\n"
            "  A slow machine? Raise shop.Case.seed.start_timeout, or all timeouts with CASEEXEC_TIMEOUT_SCALE.\n"
            "  command: sleep 300\n"
            "  waiting for: its end with status 0\n"
            "  last refusal: it is still at work\n"
            "  log: LOG\n"
            "  last output: none, it wrote nothing\n",
        )


# Listens on a port of its own choice, as its arguments say, and writes it.
CHOOSES = """
    import http.server, sys
    server = http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), http.server.SimpleHTTPRequestHandler)
    print('some words before')
    print('listening on', 'http://%s:%s/' % server.server_address)
    server.serve_forever()
"""
PORT = r"listening on http://.*:(\d+)/"


class PortPatternTests(MixinCase):
    def test_a_service_may_choose_its_port(self) -> None:
        seen = []

        class Case(ServicesMixin):
            tcp = TCPService(python(CHOOSES, 0), port_pattern=PORT)
            http = HTTPService(python(CHOOSES, 0), port_pattern=re.compile(PORT))
            api = says("{tcp.port}", "{http.url}")

            def test(self) -> None:
                seen.append(self.tcp.port)
                socket.create_connection((self.tcp.host, self.tcp.port)).close()
                self.assertEqual(self.http.url, f"http://127.0.0.1:{self.http.port}")
                self.assertEqual(self.http.address, f"127.0.0.1:{self.http.port}")
                self.assertIn(f"begin {self.tcp.port} {self.http.url}", self.api.tail())
                self.tcp.restart()
                socket.create_connection((self.tcp.host, self.tcp.port)).close()

        self.assert_passes(Case)

    def test_a_port_that_is_written_in_two_pieces_is_waited_for(self) -> None:
        halves = """
            import os, sys, time
            sys.stdout.write('on port 411')
            sys.stdout.flush()
            while not os.path.exists(sys.argv[1]):
                time.sleep(0.001)
            print('25')
            time.sleep(300)
        """
        path, asked = self.path("more"), []

        def more(executor) -> bool:
            asked.append(executor.port)
            return True

        class Case(ServicesMixin):
            tcp = CommandService(
                python(halves, path), check="true", port_pattern=r"on port (\d+)", listener="any", probe=more
            )

            def test(self) -> None:
                self.assertEqual(self.tcp.port, 41125)

        original = PortFinder._is_whole

        def is_whole(self, end: int, size: int) -> bool:
            whole = original(self, end, size)
            open(path, "w").close()  # Only when the first half was seen.
            return whole

        with mock.patch.object(PortFinder, "_is_whole", is_whole), mock.patch.object(portfinder, "_SILENCE", 20):
            self.assert_passes(Case)

    def test_a_piece_that_comes_when_the_first_was_just_read_is_waited_for(self) -> None:
        log = OutputLog().open()
        self.addCleanup(log.remove)
        os.write(log.writer, b"on port 411")
        original = Search.look

        def look(self, stop) -> object:
            match = original(self, stop)
            os.write(log.writer, b"25\n" if log.mark() == 11 else b"")
            return match

        finder = PortFinder(r"on port (\d+)")
        with mock.patch.object(Search, "look", look):
            self.assertIsNone(finder.look([log], lambda: False))
            self.assertEqual(finder.look([log], lambda: False), 41125)

    def test_what_it_never_tells_is_awaited_in_words(self) -> None:
        class Case(ServicesMixin):
            tcp = TCPService("sh -c 'echo hello; exec sleep 300'", port_pattern=r"on (\d+)", start_timeout=0.2)

            def test(self) -> None:
                raise AssertionError("must not run")

        look = PortFinder.look

        def look_when_written(finder, logs, stop) -> int | None:
            soon(lambda: logs[0].mark() == 6, 60)
            return look(finder, logs, stop)

        with mock.patch.object(PortFinder, "look", look_when_written):
            error = self.the_error(Case)
        self.assertIn("  waiting for: output that matches 'on (\\\\d+)', to know its port\n", error)
        self.assertIn("  last refusal: not found in the 6 bytes that it wrote\n", error)

    def test_what_is_no_port_is_told(self) -> None:
        class Case(ServicesMixin):
            tcp = TCPService("sh -c 'echo on x; exec sleep 300'", port_pattern="on (.*)")

            def test(self) -> None:
                raise AssertionError("must not run")

        self.assertIn(
            "port_pattern: the first group of 'on (.*)' has matched 'x', which is no port", self.the_error(Case)
        )

    def test_what_cannot_be_right_is_refused(self) -> None:
        for options, problem in (
            ({"port_pattern": "("}, "port_pattern: '(' is no regular expression: "),
            ({"port_pattern": "on"}, "port_pattern: 'on' must be a regular expression whose first group is the port"),
            ({"port_pattern": "on (.)", "port": 80}, "port: it is 80, but the service chooses its own (port_pattern)"),
        ):
            with self.subTest(problem), self.assertRaisesRegex(errors.DeclarationError, re.escape(problem)):
                TCPService("run", **options)
        with self.assertRaisesRegex(
            errors.DeclarationError, r"so \{port\}, \{address\} and \{url\} are not known before"
        ):
            TCPService("run {port}", port_pattern="on (.)")


class OutsideTests(MixinCase):
    """What the environment says."""

    def setUp(self) -> None:
        super().setUp()
        self.enterContext(self.given(CASEEXEC_REQUIRE="0"))

    def given(self, **variables: str):
        return mock.patch.dict(os.environ, variables)

    def test_one_that_is_there_already_is_used_and_left_alone(self) -> None:
        seen = []

        class Case(ServicesMixin):
            redis = TCPService("no-such-program {port}", reset=seen.append)
            http = HTTPService("no-such-program {port}")
            api = says("{redis.address}")

            def test_a(self) -> None:
                seen.append(self.redis)
                self.assertTrue(self.redis.running())
                self.assertIn(f"begin {self.redis.address}", self.api.tail())
                self.fail("no")

            def test_b(self) -> None:
                for what, use in (
                    ("stopped", self.redis.stop), ("killed", self.redis.kill), ("restarted", self.redis.restart),
                    ("stopped", self.redis.stopped().__enter__), ("paused", self.redis.paused().__enter__),
                ):  # fmt: skip
                    with self.assertRaises(errors.NotOurs) as caught:
                        use()
                    told.append((what, str(caught.exception)))

        told = []
        with TCPExecutor(python(TCP_SERVER, port := ports.free_port()), "127.0.0.1", port) as there:
            self.addCleanup(ports.release, port)
            with HTTPExecutor(python(CHOOSES, 0), "http://127.0.0.1:1", port_pattern=PORT) as http:
                with self.given(CASEEXEC_USE_REDIS=f"127.0.0.1:{port}", CASEEXEC_USE_HTTP=f"localhost:{http.port}"):
                    (failure,) = the_notes(self.run_class(Case))
            self.assertTrue(there.running())
        where = f"{Case.__module__}.{Case.__qualname__}"
        for what, text in told:
            self.assertEqual(
                text,
                f"{where}.redis can't be {what}: it was there already (CASEEXEC_USE_REDIS=127.0.0.1:{port})\n"
                "  Others may need it. Run this test without that variable, so that it has one of its own.",
            )
        self.assertEqual(len(told), 5)
        self.assertEqual(len(seen), 3, "reset before each of the two tests")
        self.assertNotIn("  redis", failure, "what it writes is not to be seen")

    def test_one_that_is_not_there_is_told_with_the_variable(self) -> None:
        class Case(ServicesMixin):
            redis = TCPService("redis-server {port}", start_timeout=0.1)

            def test(self) -> None:
                raise AssertionError("must not run")

        port = ports.free_port()
        self.addCleanup(ports.release, port)
        with self.given(CASEEXEC_USE_REDIS=f"127.0.0.1:{port}"):
            error = self.the_error(Case)
        self.assertEqual(
            masked(error.replace(f"{Case.__module__}.{Case.__qualname__}", "shop.Case")),
            "caseexec.errors.TimeoutExpired: shop.Case.redis timed out after 0.1 seconds: it was not ready\n"
            "  It is said to be there already (CASEEXEC_USE_REDIS=127.0.0.1:PORT): is it? Unset that to have it started.\n"
            "  waiting for: a TCP connection to 127.0.0.1:PORT\n"
            "  last refusal: connection refused\n",
        )

    def test_the_service_of_a_mixin_and_a_socket_can_be_there_too(self) -> None:
        class Case(TCPServiceMixin):
            service_command = "no-such-program {port}"
            unix = UnixSocketService("no-such-program", socket="{tmp}/s")
            quiet = OutputService("no-such-program", banner="never to be seen")

            def test(self) -> None:
                self.assertEqual(self.unix.address, path)
                socket.create_connection((self.service.host, self.service.port)).close()

        path = self.path("s")
        tcp = TCPExecutor(python(CHOOSES, 0), "127.0.0.1", 1, port_pattern=PORT)
        with UnixSocketExecutor(python(UNIX_SERVER, path), path), tcp:
            there = {"SERVICE": tcp.address, "UNIX": path, "QUIET": tcp.address}
            with self.given(**{f"CASEEXEC_USE_{name}": place for name, place in there.items()}):
                self.assert_passes(Case)

    def test_what_is_no_address_is_told(self) -> None:
        class Case(ServicesMixin):
            redis = TCPService("redis-server {port}")

            def test(self) -> None:
                raise AssertionError("must not run")

        for value in ("localhost", "6379", "host:port", "host:70000", "redis://host:1/2"):
            with self.subTest(value), self.given(CASEEXEC_USE_REDIS=value):
                self.assertIn(f"CASEEXEC_USE_REDIS: '{value}' is no address: write host:port, such as 127.0.0.1:6379",
                              self.the_error(Case))  # fmt: skip

    def test_a_one_shot_cannot_be_there(self) -> None:
        class Case(ServicesMixin):
            seed = OneShot("true")

            def test(self) -> None:
                raise AssertionError("must not run")

        with self.given(CASEEXEC_USE_SEED="127.0.0.1:1"):
            self.assertIn("CASEEXEC_USE_SEED: a OneShot does its work and ends", self.the_error(Case))

    def test_where_a_program_is_missing_the_class_may_be_skipped(self) -> None:
        class Case(ServicesMixin):
            good = TCPService("sleep 300", port=1, probe=lambda _: self.fail("nothing is to be started"))
            redis = TCPService("no-such-program {port}", if_missing="skip")

            def test(self) -> None:
                raise AssertionError("must not run")

        (_, reason), = self.run_class(Case).skipped  # fmt: skip
        self.assertEqual(
            reason.replace(f"{Case.__module__}.{Case.__qualname__}", "shop.Case"),
            "shop.Case.redis.command: there is no program 'no-such-program' (CASEEXEC_REQUIRE=1 makes that an error)",
        )

    def test_the_program_of_a_check_may_be_missing_too(self) -> None:
        class Case(ServicesMixin):
            server = CommandService("sleep 300", check="no-such-check", if_missing="skip")

            def test(self) -> None:
                raise AssertionError("must not run")

        ((_, reason),) = self.run_class(Case).skipped
        self.assertIn("Case.server.check: there is no program 'no-such-check'", reason)

    def test_a_skip_is_an_error_where_everything_is_required(self) -> None:
        class Case(ServicesMixin):
            redis = TCPService("no-such-program {port}", if_missing="skip")

            def test(self) -> None:
                raise AssertionError("must not run")

        with self.given(CASEEXEC_REQUIRE="1"):
            self.assertIn("CommandNotFound: ", self.the_error(Case))

    def test_a_program_that_is_there_is_started(self) -> None:
        class Case(ServicesMixin):
            server = TCPService(SERVER, if_missing="skip")

            def test(self) -> None:
                self.assertTrue(self.server.running())

        self.assert_passes(Case)

    def test_all_logs_are_kept_where_the_user_wants_them(self) -> None:
        class Case(ServicesMixin):
            redis = says()

            def test_a(self) -> None:
                say(self.redis, "hello")
                self.redis.restart()

        wanted = self.path("logs/of/mine")
        with self.given(CASEEXEC_LOG_DIR=wanted):
            self.assert_passes(Case)
        (name,) = os.listdir(wanted)
        self.assertTrue(name.startswith(f"{current_run().id}-") and name.endswith("Case.redis.log"), name)
        with open(f"{wanted}/{name}") as file:
            self.assertEqual(file.read().split(), ["begin", "hello", "begin"])

    def test_two_names_that_are_the_same_in_a_file_name_have_two_logs(self) -> None:
        class Case(ServicesMixin):
            ä = says("one")
            ö = says("two")

            def test(self) -> None:
                self.assertNotEqual(self.ä.log_path, self.ö.log_path)
                self.assertIn("one", self.ä.tail())

        with self.given(CASEEXEC_LOG_DIR=self.path("logs")):
            self.assert_passes(Case)

    def test_a_directory_for_logs_that_cannot_be_is_told(self) -> None:
        class Case(ServicesMixin):
            redis = says()

            def test(self) -> None:
                raise AssertionError("must not run")

        with open(self.path("file"), "w"), self.given(CASEEXEC_LOG_DIR=self.path("file/logs")):
            self.assertIn(f"CASEEXEC_LOG_DIR: no log can be kept in '{self.path('file/logs')}': Not a directory",
                          self.the_error(Case))  # fmt: skip

    def test_a_long_temporary_directory_leaves_room_for_a_sockets_name(self) -> None:
        class Case(ServicesMixin):
            unix = UnixSocketService(python(UNIX_SERVER, "{tmp}/a-name-of-thirty-characters.so"),
                                     socket="{tmp}/a-name-of-thirty-characters.so")  # fmt: skip

            def test(self) -> None:
                self.assertLessEqual(len(self.unix.socket), 103)

        deep = self.path("tmp") + "/" + "d" * 80
        os.mkdir(deep)
        self.addCleanup(setattr, tempfile, "tempdir", tempfile.tempdir)
        tempfile.tempdir = deep
        self.assert_passes(Case)
        os.rmdir(deep)


class MixinScopesTests(MixinCase):
    def test_the_service_of_a_mixin_for_one_can_be_shared_too(self) -> None:
        self.addCleanup(shared._end_run, os.getpid())
        seen = []

        class First(TCPServiceMixin):
            service_command = SERVER
            service_scope = "session"

            def test(self) -> None:
                seen.append(self.service)

        class Second(First):
            pass

        self.assert_passes(First)
        self.assert_passes(Second)
        self.assertIs(*seen)


def _command(parts: list[str]) -> str:
    """As an error shows it."""
    import shlex
    import textwrap

    return textwrap.indent(textwrap.dedent(shlex.join(parts)).strip(), "    ").strip()


EXIT_3_COMMAND = _command(EXIT_3)
COMMAND_OF_SAYS = _command(SAYS)
assert issubclass(TCPService, Service)

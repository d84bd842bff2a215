"""Test classes that a fault hits. They run in the runs of :mod:`tests.helpers.faults`, which says when it comes."""

import atexit
import multiprocessing
import os
import signal
import socket
import sys
import textwrap
import unittest
import unittest.signals
import warnings

from caseexec import NotReady, OutputExecutor, TCPExecutor, TCPServiceMixin, free_port
from caseexec.registry import current_run
from tests.helpers.leaks import alive, soon
from tests.helpers.programs import EXIT_3, python

NOTES = os.environ.get("FAULTS_NOTES", "")
"""The directory in which a run, and each of its services, notes what the test wants to know."""

# What all the services are made of. No braces: they would be placeholders. Who starts a process notes it, so that all
# are noted when the service answers. It answers with the directory, so that nobody else's answer is taken for its own.
_COMMON = """
    import os, signal, socket, sys, time
    directory, port = sys.argv[1], int(sys.argv[2])
    def note(name, words):
        with open(directory + '/' + name, 'a') as file:
            file.write(str(words) + chr(10))
    def start(function):
        child = os.fork()
        if child == 0:
            function()
            os._exit(0)
        return child
    def sleep():
        time.sleep(300)
    def leave():
        os.setsid()
        note('pids', start(sleep))
    def serve(answer=lambda connection: None):
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(('127.0.0.1', port))
        server.listen()
        note('ports', server.getsockname()[1])
        print('serving', flush=True)
        while True:
            connection = server.accept()[0]
            try:
                connection.sendall(directory.encode())
                answer(connection)
            except OSError:
                pass
            connection.close()
    note('pids', os.getpid())
"""

# A leader with a child in its group and a daemon in a session of its own.
FAMILY = _COMMON + """
    note('pids', start(sleep))
    os.waitpid(start(leave), 0)
    serve()
"""  # fmt: skip

# A leader that notes that it was asked to end, and does not.
STUBBORN = _COMMON + """
    signal.signal(signal.SIGTERM, lambda *_: note('asked', os.getpid()))
    serve()
"""  # fmt: skip

# A daemon in a session of its own, with no parent, environment or descriptor of the service's.
VANISHING = _COMMON + """
    def vanish():
        os.setsid()
        note('pids', start(renew))
    def renew():
        os.closerange(3, 1000)
        os.execve(sys.executable, [sys.executable, '-I', '-S', '-c', sys.argv[3], directory, str(port)], dict())
    os.waitpid(start(vanish), 0)
"""  # fmt: skip
PLAIN = _COMMON + "    serve()\n"

# Three lines of descent, each generation in a session of its own and with a child that stays, which is gone before
# anybody can signal it. Each has an end, and the last generation stays too.
BREEDER = _COMMON + """
    def breed():
        for generation in range(300):
            if os.fork():
                os._exit(0)
            os.setsid()
            note('generations', generation)
            if generation % 25 == 0:
                note('pids', start(sleep))
        sleep()
    note('pids', start(serve))
    while not os.path.exists(directory + '/breed'):
        time.sleep(0.002)
    for _ in range(3):
        start(breed)
    sleep()
"""  # fmt: skip


def service(source: str, *arguments: str) -> list[str]:
    """The command of one of the services above, for a port that is filled in."""
    return [*python(source), NOTES, "{port}", *arguments]


def at(port: int, command: list[str]) -> list[str]:
    """A command with its port, for an executor."""
    return [part.replace("{port}", str(port)) for part in command]


def note(name: str, words: object = "") -> None:
    """Note something for the test."""
    with open(os.path.join(NOTES, name), "a") as file:
        file.write(f"{words}\n")


def noted(name: str) -> bool:
    """Whether something was noted, by us or for us."""
    return os.path.exists(os.path.join(NOTES, name))


def lines(name: str) -> list[str]:
    """All that was noted by a name."""
    with open(os.path.join(NOTES, name)) as file:
        return file.read().splitlines()


def reach() -> None:
    """Tell the test that the place is reached, and wait there until it lets us go on, or sends its signal."""
    note("reached", os.getpid())
    if not soon(_may_go_on, 60):
        raise TimeoutError("nothing came")


def _may_go_on() -> bool:
    handler = unittest.signals._interrupt_handler
    if handler is not None and handler.called and not noted("interrupted"):
        note("interrupted")  # With -c, the first Ctrl-C is only remembered.
    return noted("go")


def strike(fault: str) -> None:
    """Do to ourselves what needs nobody else."""
    match fault:
        case "os_exit":
            os._exit(9)
        case "sys_exit":
            sys.exit(4)
        case "exception":
            raise ZeroDivisionError("the fault")
        case "skip_test":
            raise unittest.SkipTest("the fault")


def answers(port: int, directory: str = NOTES) -> bool:
    """Whether a service that was given this directory, and nobody else, answers on a port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            return connection.recv(4096).decode() == directory
    except OSError:
        return False


class Faulty(TCPServiceMixin):
    """A class with a service, and a test that makes the fault possible.

    There are two tests so that each of two workers has one; in one process, the second has nothing to do.
    """

    service_command = service(FAMILY)
    service_start_timeout = 60
    begun = False

    @classmethod
    def setUpClass(cls) -> None:
        note("runs", current_run().id)
        super().setUpClass()

    def test_one(self) -> None:
        self.begin()

    def test_two(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.assertTrue(answers(self.service.port))
        if not type(self).begun:
            type(self).begun = True
            self.check()

    def check(self) -> None:
        reach()


class Door:
    """A probe that says that the place is reached, and lets the wait end when the fault has come."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def check(self, target) -> None:
        if not noted(f"waiting-{os.getpid()}"):
            note(f"waiting-{os.getpid()}")
            note("reached", os.getpid())
        if not _may_go_on():
            raise NotReady("nothing came yet")
        strike(self.fault)


class Struck(Faulty):
    """Is hit by *fault* while it is in *place*."""

    place = fault = ""

    def __init_subclass__(cls) -> None:
        if cls.place == "the_wait":
            cls.service_probe = Door(cls.fault)
        super().__init_subclass__()

    @classmethod
    def tearDownClass(cls) -> None:
        if cls.place == "tear_down_class":
            reach()
            strike(cls.fault)
        super().tearDownClass()

    def check(self) -> None:
        if self.place == "a_test":
            reach()
            strike(self.fault)


class StruckTwice(Struck):
    """Its service does not end when it is asked, so that the second Ctrl-C comes while it is awaited."""

    service_command = service(STUBBORN)


class SecondFails(Faulty):
    """Has a service that starts, and one that does not."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        reach()
        OutputExecutor(EXIT_3, "never").start()


class Forks(Faulty):
    """A child of the test run exits; its services are none of the child's business."""

    def check(self) -> None:
        child = os.fork()
        if child == 0:
            self.leave()
        os.waitpid(child, 0)
        note("answers", answers(self.service.port))
        reach()

    def leave(self) -> None:
        if "PYTEST_XDIST_WORKER" not in os.environ:
            sys.exit(0)
        # A copy of a worker would talk to the controller, if it went on to its end.
        atexit._run_exitfuncs()
        os._exit(0)


class HasPool(Faulty):
    """Its workers start services, and are terminated."""

    def check(self) -> None:
        with multiprocessing.get_context("fork").Pool(2) as pool:
            pool.map(_start_in_worker, range(2), chunksize=1)
            pool.terminate()
            pool.join()
        note("answers", answers(self.service.port))
        reach()


def _start_in_worker(number: int) -> None:
    port = free_port()
    note("runs", current_run().id)
    # It must outlive this call, as an executor that is forgotten is ended.
    _start_in_worker.executor = TCPExecutor(at(port, service(FAMILY)), "127.0.0.1", port).start()
    note(f"pool-{os.getppid()}", port)
    soon(lambda: len(lines(f"pool-{os.getppid()}")) == 2, 60)  # So that each worker has one.


class Breeds(Faulty):
    """Its service forks children faster than they can be killed, from now on."""

    service_command = service(BREEDER)

    def check(self) -> None:
        note("breed")
        soon(lambda: noted("generations"), 60)
        reach()


class Vanishes(Faulty):
    """Its service becomes a daemon by which nobody can tell whose it is; only the cgroup does."""

    service_command = service(VANISHING, textwrap.dedent(PLAIN))

    def check(self) -> None:
        # Some more, as a daemon may be faster than who wants to keep it.
        type(self).others = [self.start_another() for _ in range(5)]
        reach()

    def start_another(self) -> TCPExecutor:
        port = free_port()
        command = at(port, list(self.service_command))
        return TCPExecutor(command, "127.0.0.1", port, daemonizes=self.service_daemonizes).start()


class VanishesSupervised(Vanishes):
    """Says that its service does."""

    service_daemonizes = True


class LosesReaper(Faulty):
    """Its run loses the reaper, and starts another service then."""

    def check(self) -> None:
        reaper = current_run().reaper.pid
        note("reapers", reaper)
        os.kill(reaper, signal.SIGKILL)
        soon(lambda: not alive(reaper), 60)
        port = free_port()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            type(self).second = TCPExecutor(at(port, service(FAMILY)), "127.0.0.1", port).start()
        note("reapers", current_run().reaper.pid)
        note("warnings", [(warning.category.__mro__[1].__name__, str(warning.message)) for warning in caught])
        reach()

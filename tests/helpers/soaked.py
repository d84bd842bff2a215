"""The test class of the runs of :mod:`tests.soak`: services of all kinds, in the way of faults at any moment."""

import os
import random
import shlex
import signal
import textwrap
import time
import unittest

from caseexec import TCPExecutor, free_port
from caseexec.registry import current_run
from tests.helpers import faulty
from tests.helpers.faulty import BREEDER, FAMILY, PLAIN, STUBBORN, VANISHING, note, noted, service
from tests.helpers.leaks import alive, soon

# A daemon whose environment is emptied too, but which keeps the descriptors that it inherited.
EMPTIED = VANISHING.replace("os.closerange(3, 1000)", "pass")
# A daemon as they are used to be.
DAEMON = VANISHING.replace("os.closerange(3, 1000)", "serve()")

COMMANDS = {
    "plain": service(PLAIN),
    "family": service(FAMILY),
    "daemon": service(DAEMON),
    "emptied": service(EMPTIED, textwrap.dedent(PLAIN)),
    "vanishing": service(VANISHING, textwrap.dedent(PLAIN)),
    "supervised": service(VANISHING, textwrap.dedent(PLAIN)),
    "stubborn": service(STUBBORN),
    "pipeline": service(FAMILY),
    "breeder": service(BREEDER),
    "stop command": service(FAMILY),
}


def start(kind: str) -> TCPExecutor:
    """Start a service of a kind."""
    port = free_port()
    command = faulty.at(port, COMMANDS[kind])
    return TCPExecutor(
        f"{shlex.join(command)} | cat | cat" if kind == "pipeline" else command,
        "127.0.0.1",
        port,
        shell=kind == "pipeline",
        timeout=60,
        stop_timeout=0.3,
        daemonizes=kind == "supervised",
        stop_command=["touch", os.path.join(faulty.NOTES, "stopped")] if kind == "stop command" else None,
    ).start()


class Soaked(unittest.TestCase):
    """Starts services, stops and starts them again for some time, and ends; unless a fault comes before."""

    seed = 0
    kinds: tuple[str, ...] = ()
    seconds = 0.0
    # What the run does to itself, and where.
    fault = place = ""
    loses_reaper = False

    @classmethod
    def setUpClass(cls) -> None:
        note("runs", current_run().id)
        note("breed")
        cls.services = []
        for kind in cls.kinds:
            cls.add(kind)
        cls.strike("set_up_class")

    @classmethod
    def add(cls, kind: str) -> None:
        executor = start(kind)
        cls.addClassCleanup(executor.stop)
        cls.services.append(executor)
        note("started", kind)

    @classmethod
    def strike(cls, place: str) -> None:
        if place == cls.place:
            note("struck", cls.fault)
            faulty.strike(cls.fault)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.strike("tear_down_class")

    def test_one(self) -> None:
        self.live()

    def test_two(self) -> None:
        self.live()

    def live(self) -> None:
        chance = random.Random(self.seed)
        if self.loses_reaper and not noted(f"replaced-{os.getpid()}"):
            self.lose_reaper()
        end = time.monotonic() + self.seconds / 2
        while time.monotonic() < end:
            executor = chance.choice(self.services)
            if chance.random() < 0.3:
                with executor.stopped():
                    time.sleep(chance.random() * 0.05)
            time.sleep(chance.random() * 0.05)
        self.strike("a_test")

    def lose_reaper(self) -> None:
        reaper = current_run().reaper.pid
        os.kill(reaper, signal.SIGKILL)
        soon(lambda: not alive(reaper))
        self.add("family")
        note(f"replaced-{os.getpid()}")
        note("replaced")

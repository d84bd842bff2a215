"""Leases of ports between real processes: at once, after a normal end, and after a kill."""

import itertools
import os
import signal
import subprocess
import sys
import unittest

from caseexec import processes, record
from tests.helpers.leaks import alive, soon
from tests.helpers.runs import RunCase

# Says that it is there; at each word leases so many ports from so few that they meet, and tells them.
LEASES = """
    import sys
    from caseexec import ports
    ports.leases._lowest_ephemeral = lambda: 12_500
    print("there", flush=True)
    for number in sys.stdin:
        print(*[ports.free_port() for _ in range(int(number))], flush=True)
"""

# At each word, takes one after the other the leases in that directory, and tells which it has got.
RACES = """
    import os, sys
    from caseexec import record
    holder = record.lease_holder()
    print("there", flush=True)
    for line in sys.stdin:
        where, ports = line.split()
        got = [port for port in range(int(ports)) if record.take_lease(record.lease_path(where, port), holder)]
        print(*got, flush=True)
"""

RUN = """
    import os, signal, sys
    from caseexec import SimpleExecutor, TCPServiceMixin, free_port
    from caseexec.registry import current_run
    from tests.helpers.programs import TCP_SERVER, python
    import unittest
    class CacheTests(TCPServiceMixin, unittest.TestCase):
        service_command = [*python(TCP_SERVER), "{port}"]
    def start():
        CacheTests.setUpClass()
        return CacheTests.service.port
    def stop():
        CacheTests.doClassCleanups()
"""


class LeaseCase(RunCase):
    def setUp(self) -> None:
        super().setUp()
        self.environment["XDG_RUNTIME_DIR"] = self.make_dir("runtime")
        os.chmod(self.path("runtime"), 0o700)
        self.where = self.path("runtime/caseexec")
        self.addCleanup(lambda: self.assertEqual(os.listdir(self.path("runtime")), [], "leases remain"))

    def leased(self) -> set[int]:
        names = os.listdir(self.where) if os.path.isdir(self.where) else []
        return {int(name.removeprefix("port-")) for name in names if name.startswith("port-")}

    def begin_others(self, program: str, number: int) -> list[subprocess.Popen]:
        """So many processes that wait for a word of ours."""
        path, others = self.write("program.py", program), []
        for _ in range(number):
            other = subprocess.Popen(
                [sys.executable, "-W", "error", path], env=self.environment, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
            self.addCleanup(other.wait)
            self.addCleanup(other.kill)
            self.addCleanup(other.stdout.close)
            self.addCleanup(other.stdin.close)
            others.append(other)
        self.assertEqual([other.stdout.readline() for other in others], ["there\n"] * number)
        return others

    def say(self, others: list[subprocess.Popen], word: object) -> list[list[int]]:
        """Say a word to all at once; the numbers that each answers with."""
        for other in others:
            other.stdin.write(f"{word}\n")
            other.stdin.flush()
        return [[int(number) for number in other.stdout.readline().split()] for other in others]

    def end(self, others: list[subprocess.Popen]) -> None:
        for other in others:
            other.stdin.close()
        self.assertEqual([other.wait(60) for other in others], [0] * len(others))


class AtOnceTests(LeaseCase):
    def test_eight_processes_lease_200_ports_each_and_none_twice(self) -> None:
        others = self.begin_others(LEASES, 8)
        leased = self.say(others, 200)
        self.assertEqual([len(ports) for ports in leased], [200] * 8)
        self.assertEqual(len(set(itertools.chain(*leased))), 1600)
        self.assertEqual(self.leased(), set(itertools.chain(*leased)))
        self.end(others)
        self.assertFalse(os.path.exists(self.where))

    def test_nor_when_some_of_them_are_killed_meanwhile(self) -> None:
        others = self.begin_others(LEASES, 6)
        killed, rest = others[:3], others[3:]
        for other in killed:
            other.stdin.write("100\n" * 4)
            other.stdin.flush()
        leased = self.say(rest, 100)
        for other in killed:
            other.kill()
            other.wait()
        # What the dead had is given out again, and what the living have is not.
        again = [self.say(rest, 200), self.say(rest, 200)]
        mine = [list(itertools.chain(*ports)) for ports in zip(leased, *again, strict=True)]
        self.assertEqual([len(ports) for ports in mine], [500] * 3)
        self.assertEqual(len(set(itertools.chain(*mine))), 1500)
        self.end(rest)
        # The living had begun before the others died.
        self.end_with_a_later_one()

    def end_with_a_later_one(self) -> None:
        """What is left of the dead goes with the first lease of another process."""
        later = self.begin_others(LEASES, 1)
        (ports,) = self.say(later, 1)
        self.assertEqual(self.leased(), set(ports))
        self.end(later)

    def test_no_lease_of_a_dead_process_is_got_by_two_who_race_for_it(self) -> None:
        others, dead = self.begin_others(RACES, 4), subprocess.Popen(["true"])
        identity = processes.table().status(dead.pid).identity
        dead.wait()
        for turn in range(12):
            where = self.make_dir(f"race-{turn}")
            os.chmod(where, 0o700)
            for port in range(100):
                with open(record.lease_path(where, port), "w") as file:
                    file.write(f"{identity.pid} {identity.born} {record.system()}\n")
            got = self.say(others, f"{where} 100")
            # One that two were after at once may be got by neither of them; then it is there for the next who asks.
            alone = self.say(others[:1], f"{where} 100") + [[]] * 3
            got = [first + second for first, second in zip(got, alone, strict=True)]
            self.assertEqual(sorted(itertools.chain(*got)), list(range(100)), got)
            for other, theirs in zip(others, got, strict=True):
                for port in theirs:
                    with open(record.lease_path(where, port)) as file:
                        self.assertEqual(file.read().split()[0], str(other.pid))
        self.end(others)


class EndTests(LeaseCase):
    def test_at_a_normal_end_nothing_stays(self) -> None:
        for then in ("pass", "sys.exit(3)", "raise KeyboardInterrupt", "1 / 0"):
            with self.subTest(then):
                program = f"import os, sys, caseexec\ncaseexec.free_port()\nprint(os.listdir({self.where!r}))\n{then}\n"
                _, output = self.run_python(self.write("program.py", program))
                self.assertIn("['port-", output)
                self.assertEqual(os.listdir(self.path("runtime")), [])

    def test_nor_after_a_signal_that_ends_the_run_gracefully(self) -> None:
        self.environment["CASEEXEC_REAPER"] = "0"  # Which would do it, too.
        program = RUN + "    import caseexec; caseexec.install_signal_handlers()\n    start(); free_port()\n"
        end = "    print(os.listdir(os.environ['XDG_RUNTIME_DIR']), flush=True)\n    os.kill(os.getpid(), signal.SIGTERM)\n"
        code, output = self.run_python(self.write("run.py", program + end))
        self.assertEqual((code, output), (-signal.SIGTERM, "['caseexec']\n"))

    def test_a_forked_child_that_ends_removes_its_own_and_none_of_its_parents(self) -> None:
        for start in ("fork", "multiprocessing"):
            with self.subTest(start):
                program = f"""
                    import multiprocessing, os, sys
                    from caseexec import free_port
                    def child():
                        own = free_port()
                        assert sorted(os.listdir({self.where!r})) == sorted([f"port-{{port}}", f"port-{{own}}"])
                    if __name__ == "__main__":
                        port = free_port()
                        if {start == "fork"}:
                            pid = os.fork()
                            if pid == 0:
                                child()
                                sys.exit(0)
                            assert os.waitpid(pid, 0)[1] == 0
                            assert os.listdir({self.where!r}) == [f"port-{{port}}"]
                        else:
                            process = multiprocessing.get_context("fork").Process(target=child)
                            process.start()
                            process.join()
                            assert process.exitcode == 0
                            assert f"port-{{port}}" in os.listdir({self.where!r})
                """
                self.assertEqual(self.run_python("-W", "error", self.write("program.py", program)), (0, ""))
        # Before Python 3.13 a child of multiprocessing ends without its exit handlers.
        later = self.begin_others(LEASES, 1)
        self.say(later, 1)
        self.end(later)

    def test_what_a_killed_one_has_left_goes_with_the_first_lease_of_the_next(self) -> None:
        (first,) = self.begin_others(LEASES, 1)
        (ports,) = self.say([first], 5)
        first.kill()
        first.wait()
        self.assertEqual(self.leased(), set(ports))
        next_one = self.begin_others(LEASES, 1)
        (port,) = self.say(next_one, 1)
        self.assertEqual(self.leased(), set(port))
        self.end(next_one)
        self.assertFalse(os.path.exists(self.where))


class KilledRunTests(LeaseCase):
    """The reaper removes the leases of a run that is killed."""

    def kill_after(self, *steps: str, seconds: float = 20) -> list[int]:
        """Run these steps and be killed; the ports that were leased then."""
        listing = f"print(*[name[5:] for name in os.listdir({self.where!r}) if name.startswith('port-')], flush=True)"
        kill = "os.kill(os.getpid(), signal.SIGKILL)"
        code, output = self.run_python(
            self.write("run.py", RUN + "".join(f"    {step}\n" for step in (*steps, listing, kill)))
        )
        self.assertEqual(code, -signal.SIGKILL, output)
        self.assertTrue(soon(lambda: not os.listdir(self.path("runtime")), seconds), os.listdir(self.path("runtime")))
        self.assertTrue(soon(lambda: not os.listdir(self.run_tmp)))
        return [int(port) for port in output.splitlines()[-1].split()]

    def test_that_of_a_service_and_one_beside_it(self) -> None:
        self.assertEqual(len(self.kill_after("start()", "free_port()")), 2)

    def test_those_that_were_leased_before_there_was_a_service(self) -> None:
        self.assertEqual(len(self.kill_after("free_port()", "executor = SimpleExecutor('sleep 300').start()")), 1)

    def test_those_that_it_had_when_its_services_were_stopped(self) -> None:
        self.assertEqual(len(self.kill_after("start()", "stop()", "free_port()")), 1)

    def test_those_in_another_directory(self) -> None:
        os.mkdir(self.path("other"), 0o700)
        other = f"os.environ['XDG_RUNTIME_DIR'] = {self.path('other')!r}"
        self.assertEqual(len(self.kill_after("start()", other, "free_port()", "free_port()")), 1)
        self.assertTrue(soon(lambda: not os.listdir(self.path("other"))))

    def test_those_of_other_dead_processes_go_with_them(self) -> None:
        (other,) = self.begin_others(LEASES, 1)
        self.say([other], 1)
        kill = f"os.kill({other.pid}, signal.SIGKILL)"
        # After the first lease of the run, so that only its reaper can be who removes it.
        self.assertEqual(len(self.kill_after("start()", kill)), 2)

    def test_those_of_the_living_stay(self) -> None:
        others = self.begin_others(LEASES, 1)
        (ports,) = self.say(others, 2)
        program = RUN + "    start(); free_port()\n    print(current_run().reaper.pid, flush=True)\n"
        code, output = self.run_python(self.write("run.py", program + "    os.kill(os.getpid(), signal.SIGKILL)\n"))
        self.assertEqual(code, -signal.SIGKILL, output)
        self.assertTrue(soon(lambda: not alive(int(output))), "its reaper is at work")
        self.assertEqual(self.leased(), set(ports))
        self.end(others)

    def test_a_run_that_ends_as_it_should_leaves_its_reaper_nothing_to_do(self) -> None:
        program = RUN + "    free_port(); start(); free_port()\n    print(current_run().reaper.pid, flush=True)\n"
        code, output = self.run_python(self.write("run.py", program))
        self.assertEqual(code, 0, output)
        self.assertIsNone(processes.table().status(int(output)), "it is gone before the run")
        self.assertEqual(os.listdir(self.path("runtime")), [])

    def test_those_of_a_worker_whose_parent_was_killed(self) -> None:
        program = (
            RUN.replace("import os,", "import multiprocessing, os,")
            + """
    def work():
        start(); free_port()
        print(os.getpid(), current_run().reaper.pid, flush=True)
        signal.pause()
    if __name__ == "__main__":
        worker = multiprocessing.get_context("fork").Process(target=work)
        worker.start()
        signal.pause()
"""
        )
        parent = self.begin(self.write("run.py", program))
        worker, reaper = map(int, self.line(parent).split())
        self.assertEqual(len(self.leased()), 2)
        parent.kill()
        self.assertTrue(soon(lambda: not alive(reaper)), "its reaper is at work")
        self.assertTrue(alive(worker))
        os.kill(worker, signal.SIGKILL)
        self.assertEqual(os.listdir(self.path("runtime")), [])


if __name__ == "__main__":
    unittest.main()

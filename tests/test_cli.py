import json
import os
import re
import signal
import subprocess
import sys
import unittest

from caseexec import processes, record, supervisor
from tests.helpers.leaks import alive, soon
from tests.helpers.programs import VANISHES, python
from tests.helpers.runs import RunCase

KILLED = """
    import os, signal, sys
    from caseexec import OutputExecutor, SimpleExecutor, TCPServiceMixin
    from caseexec.registry import current_run
    from tests.helpers.programs import TCP_SERVER, python
    import unittest
    class CacheTests(TCPServiceMixin, unittest.TestCase):
        service_command = [*python(TCP_SERVER), "{port}"]
    executor = EXECUTOR.start()
    CacheTests.setUpClass()
    print(executor.pid, CacheTests.service.pid, CacheTests.service.port, current_run().id, flush=True)
"""
EXECUTOR = """SimpleExecutor(["sh", "-c", "sleep 300 & wait"])"""
KILLS_ITSELF = "    os.kill(os.getpid(), signal.SIGKILL)\n"
WAITS = "    sys.stdin = open('/dev/null'); signal.pause()\n"


class CliCase(RunCase):
    def setUp(self) -> None:
        super().setUp()
        self.environment["CASEEXEC_REAPER"] = "0"
        self.environment["XDG_RUNTIME_DIR"] = self.make_dir("runtime")
        os.chmod(self.path("runtime"), 0o700)

    python = os.path.basename(sys.executable)

    # Other tests that run now have runs of their own, with their records elsewhere: these are not to be seen or ended.
    ALONE = "from caseexec import cli, record; record.elsewhere = lambda pids=(): []; cli.main()"

    def cli(self, *arguments: str) -> tuple[int, str]:
        code, output = self.run_python("-c", self.ALONE, *arguments)
        return code, re.sub("left alone: .*, which has no record\n", "", output)

    def killed_run(self, executor: str = EXECUTOR) -> None:
        """A run that was killed, while nobody ends what it has left."""
        program = KILLED.replace("EXECUTOR", executor) + KILLS_ITSELF
        code, output = self.run_python(self.write("killed.py", program))
        self.assertEqual(code, -signal.SIGKILL, output)
        self.note(output)

    def live_run(self) -> subprocess.Popen:
        process = self.begin(self.write("live.py", KILLED.replace("EXECUTOR", EXECUTOR) + WAITS))
        self.note(self.line(process))
        return process

    def note(self, line: str) -> None:
        first, second, port, self.run_id = line.split()
        self.pids, self.port = [int(first), int(second)], int(port)
        self.addCleanup(self.end)

    def end(self) -> None:
        self.cli("reap", "--all")

    def services(self) -> list[dict]:
        """The services of the one run, as ps tells them in JSON."""
        (run,) = json.loads(self.cli("ps", "--json")[1])
        return run["services"]

    def masked(self, output: str) -> str:
        """The output without what differs each time."""
        for found, shown in (
            (self.run_id, "RUN"), (sys.executable, "PYTHON"), (self.tmp, "DIR"), (os.path.realpath(self.tmp), "DIR"),
        ):  # fmt: skip
            output = output.replace(found, shown)
        output = re.sub(r"caseexec-RUN\.\d+-(\S*?)(-[a-z0-9]{8})?\.log", r"caseexec-RUN.N-\1.log", output)
        output = re.sub(r"\b[0-9]+\.[0-9] MiB", "SIZE", re.sub(r"\b[0-9]+ s\b", "AGE", output))
        return re.sub(r"(pid|kill) [0-9]+(, [0-9]+)*", r"\1 PID", output)


class PsTests(CliCase):
    def test_without_services_it_says_so_and_where_it_looked(self) -> None:
        self.assertEqual(
            self.cli("ps"), (0, f"no services live (the records are in {self.path('runtime')}/caseexec)\n")
        )

    def test_it_lists_the_services_of_a_dead_run_and_says_how_to_end_them(self) -> None:
        self.killed_run()
        code, output = self.cli("ps")
        self.assertEqual(code, 0)
        header, sh, server, *rest = output.splitlines()
        self.assertEqual(header.split(), "RUN STATE TEST CLASS SERVICE PID ADDRESS AGE MEMORY LOG".split())
        self.assertRegex(
            sh,
            rf"^{self.run_id}  DEAD +sh +{self.pids[0]} \+1 +\d+ s +[\d.]+ MiB +\S+/caseexec-{self.run_id}\.1-sh-\S+\.log$",
        )
        name = re.escape(self.python)
        self.assertRegex(server, rf"DEAD +__main__\.CacheTests +{name} -c +{self.pids[1]} +127\.0\.0\.1:{self.port} ")
        means = "cgroup, group, tree, environment, descriptor"
        self.assertEqual(
            self.masked("\n".join(rest)).replace(means, means[8:]),
            "\nrun RUN: DEAD, pid PID: PYTHON DIR/killed.py, in DIR\n"
            "  reaper: none; descendants are found by: group, tree, environment, descriptor\n"
            "  end what it left: PYTHON -m caseexec reap RUN",
        )

    def test_as_json_it_tells_everything(self) -> None:
        self.killed_run()
        _, output = self.cli("ps", "--json")
        (run,) = json.loads(output)
        self.assertEqual((run["id"], run["alive"], run["reaper"]), (self.run_id, False, None))
        self.assertEqual([service["pid"] for service in run["services"]], self.pids)
        self.assertEqual(len(run["services"][0]["pids"]), 2)
        self.assertEqual(run["services"][1]["test_class"], "__main__.CacheTests")
        self.assertGreater(run["services"][1]["memory"], 2**20)

    def test_of_a_service_whose_leader_has_ended_it_shows_a_process_that_lives(self) -> None:
        self.killed_run("""OutputExecutor(["sh", "-c", "sleep 300 & echo up"], "up")""")
        self.assertTrue(soon(lambda: not alive(self.pids[0])))
        (daemon,) = self.services()[0]["pids"]
        self.assertRegex(self.cli("ps")[1], rf" sh +{daemon} +\d+ s ")

    @unittest.skipUnless(supervisor.available(), "there are no supervisors here")
    def test_who_is_only_below_a_supervisor_is_shown_with_its_service(self) -> None:
        self.environment["CASEEXEC_CGROUP"] = "0"
        pid = self.path("pid")
        program = [*python(VANISHES), pid, ""]
        self.killed_run(f"SimpleExecutor({program!r}, daemonizes=True)")
        self.assertTrue(soon(lambda: os.path.exists(pid)))
        with open(pid) as file:
            self.assertIn(int(file.read()), self.services()[0]["pids"])

    def test_it_shows_the_runs_of_another_temporary_directory_too(self) -> None:
        self.killed_run()
        there = self.environment
        self.environment = {**there, "XDG_RUNTIME_DIR": "", "TMPDIR": self.make_dir("other")}
        _, output = self.run_python("-m", "caseexec", "ps")
        self.assertRegex(output, rf"(?m)^{self.run_id}  DEAD +sh ")
        code, output = self.run_python("-m", "caseexec", "reap", self.run_id)
        self.assertEqual((code, self.masked(output).splitlines()[-1]), (0, "run RUN (DEAD, pid PID): nothing is left"))
        self.assertEqual((os.listdir(self.run_tmp), os.listdir(self.path("runtime"))), ([], []))
        self.environment = there

    def test_what_has_ended_is_not_listed(self) -> None:
        self.killed_run()
        for pid in self.pids:
            os.killpg(pid, signal.SIGKILL)
        self.assertTrue(soon(lambda: not any(map(alive, self.pids))))
        _, output = self.cli("ps")
        self.assertIn("no services live", output)
        self.assertIn(f"has left temporary files; remove them: {sys.executable} -m caseexec reap {self.run_id}", output)

    def test_leases_of_ports_are_no_runs(self) -> None:
        os.mkdir(self.path("runtime/caseexec"), 0o700)
        for name, content in (("port-1", record.lease_holder()), ("port-2", ""), ("port-3", "{")):
            self.write(f"runtime/caseexec/{name}", content)
        where = f"{self.path('runtime')}/caseexec"
        self.assertEqual(self.cli("ps"), (0, f"no services live (the records are in {where})\n"))
        self.assertEqual(self.cli("ps", "--json"), (0, "[]\n"))
        self.assertEqual(self.cli("reap"), (0, f"nothing is left by dead runs (the records are in {where})\n"))
        self.assertEqual(sorted(os.listdir(where)), ["port-1", "port-2", "port-3"])

    def test_a_record_that_is_not_one_is_told_and_ignored(self) -> None:
        os.mkdir(self.path("runtime/caseexec"), 0o700)
        self.write("runtime/caseexec/x.json", "{")
        os.chmod(self.path("runtime/caseexec/x.json"), 0o600)
        code, output = self.cli("ps")
        self.assertEqual(code, 0)
        self.assertRegex(output, r"^caseexec: .*/runtime/caseexec/x\.json is ignored: ")
        for of_a_run in ("error", "ignore"):
            self.environment["PYTHONWARNINGS"] = of_a_run
            self.assertEqual(self.cli("ps"), (0, output))

    def test_a_directory_that_others_can_enter_is_refused(self) -> None:
        os.mkdir(self.path("runtime/caseexec"), 0o755)
        where = self.path("runtime/caseexec")
        problem = f"caseexec: {where} can be entered by other users; remove it, or: chmod 700 {where}\n"
        self.assertEqual(self.cli("ps"), (2, problem))


class ReapTests(CliCase):
    def test_with_nothing_to_do_it_says_so(self) -> None:
        where = f"{self.path('runtime')}/caseexec"
        self.assertEqual(self.cli("reap"), (0, f"nothing is left by dead runs (the records are in {where})\n"))

    def test_a_record_that_cannot_be_read_is_told_and_is_no_success(self) -> None:
        os.mkdir(self.path("runtime/caseexec"), 0o700)
        path = self.write("runtime/caseexec/x.json", "[]")
        os.chmod(path, 0o600)
        problem = "it is not a record of format 1; remove it when none of your test runs is alive"
        self.assertEqual(self.cli("reap"), (2, f"caseexec: {path} is ignored: {problem}\n"))

    def test_it_ends_and_removes_what_a_dead_run_has_left_and_tells_of_each(self) -> None:
        self.killed_run()
        code, output = self.cli("reap")
        self.assertEqual(
            (code, self.masked(output).replace(self.python, "python")),
            (0, "run RUN (DEAD, pid PID): ending sh, pid PID\n"
                "run RUN (DEAD, pid PID): ending python -c of __main__.CacheTests, pid PID\n"
                "run RUN (DEAD, pid PID): removed DIR/run/caseexec-RUN.N-sh.log\n"
                "run RUN (DEAD, pid PID): removed DIR/run/caseexec-RUN.N-sh.log\n"
                "run RUN (DEAD, pid PID): removed DIR/run/caseexec-RUN.2\n"
                "run RUN (DEAD, pid PID): removed DIR/run/caseexec-RUN.N-__main__.CacheTests.log\n"
                "run RUN (DEAD, pid PID): nothing is left\n"),
        )  # fmt: skip
        self.assertFalse(any(map(alive, self.pids)))
        self.assertEqual((os.listdir(self.run_tmp), os.listdir(self.path("runtime"))), ([], []))

    def test_leases_of_the_dead_are_removed_but_by_a_dry_run(self) -> None:
        program = "import os, caseexec; print(caseexec.free_port(), flush=True); os.kill(os.getpid(), 9)"
        _, port = self.run_python("-c", program)
        self.assertEqual(os.listdir(self.path("runtime/caseexec")), [f"port-{int(port)}"])
        self.assertEqual(self.cli("reap", "--dry-run")[0], 0)
        self.assertEqual(os.listdir(self.path("runtime/caseexec")), [f"port-{int(port)}"])
        self.assertEqual(self.cli("reap")[0], 0)
        self.assertEqual(os.listdir(self.path("runtime")), [])

    def test_stop_commands_are_told_as_they_are_not_run(self) -> None:
        self.killed_run("""SimpleExecutor("sleep 300", stop_command=["touch", "a file"], name="box")""")
        code, output = self.cli("reap")
        self.assertEqual(code, 0)
        told = "run it yourself, as its environment is not known: the stop command of box, touch 'a file'"
        self.assertIn(f"run RUN (DEAD, pid PID): {told}\n", self.masked(output))
        self.assertFalse(os.path.exists(self.path("a file")))

    def test_a_reaper_that_is_at_work_is_let_end_it(self) -> None:
        self.environment["CASEEXEC_REAPER"] = "1"
        stop = ["sh", "-c", f"touch {self.path('begun')}; while [ ! -e {self.path('go')} ]; do sleep 0.01; done"]
        self.killed_run(f"SimpleExecutor('sleep 300', stop_command={stop!r}, name='box')")
        self.assertTrue(soon(lambda: os.path.exists(self.path("begun"))))
        self.assertIn(", at work; descendants are found by", self.cli("ps")[1])
        process = self.begin("-c", self.ALONE, "reap", self.run_id)
        first = process.stdout.readline()
        self.assertIn("its reaper is at work, pid ", first)
        with open(self.path("go"), "w"):
            pass
        output, _ = process.communicate(timeout=30)
        self.assertEqual((process.returncode, self.masked(output)), (0, "run RUN (DEAD, pid PID): nothing is left\n"))

    def test_one_that_is_stuck_is_told_and_not_waited_for_any_longer(self) -> None:
        self.environment["CASEEXEC_REAPER"] = "1"
        run = self.live_run()
        (recorded,) = json.loads(self.cli("ps", "--json")[1])
        self.addCleanup(os.kill, recorded["reaper"], signal.SIGKILL)
        os.kill(recorded["reaper"], signal.SIGSTOP)
        run.kill()
        run.wait()
        self.assertIn(
            f"  reaper: pid {recorded['reaper']}, stopped: kill -CONT {recorded['reaper']};", self.cli("ps")[1]
        )
        code, output = self.cli("reap")
        self.assertIn(
            "run RUN (DEAD, pid PID): its reaper does not go on, so that its work is done here\n", self.masked(output)
        )
        told = f"nothing is left but its reaper, end it: kill -KILL {recorded['reaper']}"
        self.assertIn(f"run RUN (DEAD, pid PID): {told}\n", self.masked(output))
        self.assertEqual((code, [*map(alive, self.pids)]), (1, [False, False]))

    def test_a_dry_run_only_tells_and_its_status_says_that_something_is_left(self) -> None:
        self.killed_run()
        code, output = self.cli("reap", "--dry-run")
        self.assertEqual(code, 1)
        self.assertIn(f"would end sh, pid {self.pids[0]}", output)
        self.assertIn(f"would remove {self.run_tmp}/caseexec-{self.run_id}.2", output)
        self.assertTrue(all(map(alive, self.pids)))

    def test_a_live_run_is_spared(self) -> None:
        self.live_run()
        self.assertEqual(self.cli("reap")[0], 0)
        self.assertTrue(all(map(alive, self.pids)))

    def test_all_and_a_name_take_the_services_of_a_live_run_and_leave_its_directories_to_it(self) -> None:
        for arguments in (["--all"], []):
            process = self.live_run()
            code, output = self.cli("reap", *(arguments or [self.run_id]))
            self.assertEqual(code, 0, output)
            self.assertIn(f"run {self.run_id} (alive, pid {process.pid}): ending sh, pid", output)
            self.assertFalse(any(map(alive, self.pids)))
            self.assertTrue(os.path.exists(f"{self.run_tmp}/caseexec-{self.run_id}.2"))
            process.send_signal(signal.SIGINT)
            process.wait()

    def test_what_a_run_within_has_left_is_removed_too(self) -> None:
        self.write("inner.py", KILLED.replace("EXECUTOR", EXECUTOR) + WAITS)
        self.killed_run("""OutputExecutor([sys.executable, "inner.py"], r"\\d+ \\d+ \\d+ \\w+")""")
        code, output = self.cli("reap", self.run_id)
        self.assertEqual((code, output.count(": nothing is left\n")), (0, 2), output)
        self.assertEqual(os.listdir(self.run_tmp), [])
        self.assertFalse(os.path.exists(self.path("runtime/caseexec")))

    def test_only_the_runs_that_are_named(self) -> None:
        self.killed_run()
        code, output = self.cli("reap", "0123")
        self.assertEqual((code, output), (
            2, f"run 0123: there is no readable record of it in {self.path('runtime')}/caseexec\n"))  # fmt: skip
        self.assertTrue(all(map(alive, self.pids)))

    def test_who_has_the_pid_and_the_start_time_but_not_the_mark_is_left_alone(self) -> None:
        stranger = subprocess.Popen(["sleep", "300"], start_new_session=True)
        self.addCleanup(stranger.wait)
        self.addCleanup(stranger.kill)
        born = processes.table().status(stranger.pid).identity.born
        service = record.ServiceRecord(mark="77.1", pid=stranger.pid, born=born, service="redis")
        where = self.path("runtime/caseexec")
        record.write(record.RunRecord(id="77", pid=1, born=0, system=record.system(), services=(service,)), where)
        code, output = self.cli("reap")
        self.assertEqual(code, 1)
        self.assertRegex(
            output, rf"left alone: pid {stranger.pid} \(sleep 300\) .* was redis, but carries no mark of it"
        )
        self.assertIsNone(stranger.poll())

    def test_a_later_process_with_the_same_pid_is_not_even_mentioned(self) -> None:
        stranger = subprocess.Popen(["sleep", "300"], start_new_session=True)
        self.addCleanup(stranger.wait)
        self.addCleanup(stranger.kill)
        born = processes.table().status(stranger.pid).identity.born
        service = record.ServiceRecord(mark="77.1", pid=stranger.pid, born=born - 1, service="redis")
        run = record.RunRecord(id="77", pid=1, born=0, system=record.system(), services=(service,))
        record.write(run, self.path("runtime/caseexec"))
        code, output = self.cli("reap")
        self.assertEqual((code, output), (0, "run 77 (DEAD, pid 1): nothing is left\n"))
        self.assertIsNone(stranger.poll())

    def test_a_wrong_option_is_explained(self) -> None:
        code, output = self.cli("reap", "--al1")
        self.assertEqual(code, 2)
        self.assertIn("unrecognized arguments: --al1", output)


class AlreadyRunningTests(CliCase):
    SECOND = """
        import sys
        from caseexec import TCPExecutor
        from tests.helpers.programs import TCP_SERVER, python
        port = int(sys.argv[1])
        try:
            TCPExecutor([*python(TCP_SERVER), str(port)], "127.0.0.1", port, name="second").start()
        except Exception as error:
            print(error)
    """

    def second(self) -> list[str]:
        """What the error of a second service on the port says in its lines 2 to 4."""
        _, output = self.run_python(self.write("second.py", self.SECOND), str(self.port))
        output = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "WHEN", output)
        return [line.replace(self.python, "python") for line in self.masked(output).splitlines()[1:4]]

    def test_it_names_the_dead_run_and_the_command_that_ends_it(self) -> None:
        self.killed_run()
        self.assertEqual(
            self.second(),
            ["  It is python -c of __main__.CacheTests, started WHEN by caseexec run RUN (pid PID: PYTHON DIR/killed.py), "
             "which has ended.",
             "  End it: PYTHON -m caseexec reap RUN",
             "  Or use another port (its port)."],
        )  # fmt: skip

    def test_it_names_the_live_run(self) -> None:
        self.live_run()
        first, second, _ = self.second()
        self.assertIn("(pid PID: PYTHON DIR/live.py), which is still running.", first)
        self.assertEqual(second, "  Wait for that run, or end its services: PYTHON -m caseexec reap RUN")

    def test_without_a_record_it_still_says_that_it_is_a_service(self) -> None:
        self.killed_run()
        os.rename(self.path("runtime/caseexec"), self.path("elsewhere"))
        self.addCleanup(os.rename, self.path("elsewhere"), self.path("runtime/caseexec"))
        self.assertEqual(
            self.second(),
            ["  It is a service of caseexec run RUN, of which there is no record in DIR/runtime/caseexec: it was "
             "removed, or is another user's.",
             "  End that process (kill PID)", "  Or use another port (its port)."],
        )  # fmt: skip

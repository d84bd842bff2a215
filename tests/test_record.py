import contextlib
import io
import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
import unittest
import warnings
from dataclasses import asdict, replace
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from caseexec import processes, record
from caseexec.errors import RecordWarning
from caseexec.record import RunRecord, ServiceRecord, files, place, store
from tests.helpers.leaks import NothingRemains, soon
from tests.helpers.programs import SLEEP
from tests.helpers.runs import ROOT

NOBODY = 65534


def born(pid: int) -> float:
    return processes.table().status(pid).identity.born


def a_service(**facts) -> ServiceRecord:
    return ServiceRecord(**{"mark": "c0de.1", "pid": 4, "born": 1.5, "service": "redis", "cgroup": "/c", **facts})


def a_run(**facts) -> RunRecord:
    own = {"id": "c0de", "pid": os.getpid(), "born": born(os.getpid()), "system": record.system()}
    further = {"means": ("group",), "paths": ("/tmp/caseexec-c0de.2",), "services": (a_service(),), "reaper": 5}
    return RunRecord(**{**own, **further, **facts})


class RecordCase(NothingRemains):
    def setUp(self) -> None:
        super().setUp()
        patch = mock.patch.dict(os.environ, XDG_RUNTIME_DIR=self.make_dir("runtime"))
        patch.start()
        self.addCleanup(patch.stop)
        self.where = record.directory()

    def put(self, content: bytes, name: str = "c0de.json", mode: int = 0o600) -> str:
        """A file among the records."""
        os.makedirs(self.where, 0o700, exist_ok=True)
        path = os.path.join(self.where, name)
        with open(path, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(content)
        os.chmod(path, mode)
        return path

    def put_changed(self, **facts) -> str:
        return self.put(json.dumps({"format": 1, **asdict(a_run()), **facts}).encode())

    def read(self) -> list[RunRecord]:
        """The records, of which none may be told."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return record.read_all()

    def assert_told(self, problem: str) -> None:
        """One file is told, and left out."""
        with self.assertWarnsRegex(RecordWarning, problem) as caught:
            self.assertEqual(record.read_all(), [])
        self.assertEqual(os.path.dirname(caught.warning.path), self.where)
        self.assertEqual(str(caught.warning), f"{caught.warning.path} is ignored: {caught.warning.problem}")


class DirectoryTests(RecordCase):
    def setUp(self) -> None:
        super().setUp()
        self.fallback = os.path.join(self.path("tmp"), f"caseexec-{os.getuid()}")

    def directory(self, runtime: str) -> str:
        with mock.patch.dict(os.environ, XDG_RUNTIME_DIR=runtime):
            return record.directory()

    def test_it_is_below_the_runtime_directory_of_the_user(self) -> None:
        self.assertEqual(self.directory(self.path("runtime")), self.path("runtime/caseexec"))

    def test_that_of_the_leases_is_the_same_for_runs_with_another_temporary_directory(self) -> None:
        self.assertEqual(record.lease_directory(), record.directory())
        with mock.patch.dict(os.environ, XDG_RUNTIME_DIR=""):
            self.assertEqual(record.lease_directory(), f"/tmp/caseexec-{os.getuid()}")
            with mock.patch.object(os, "access", return_value=False):
                self.assertEqual(record.lease_directory(), self.fallback)

    def test_without_one_it_is_in_the_temporary_directory(self) -> None:
        with mock.patch.dict(os.environ):
            del os.environ["XDG_RUNTIME_DIR"]
            self.assertEqual(record.directory(), self.fallback)
        self.assertEqual(self.directory(""), self.fallback)
        self.assertEqual(self.directory(self.path("never")), self.fallback)

    def test_a_relative_one_is_none(self) -> None:
        before = os.getcwd()
        os.chdir(self.tmp)
        self.addCleanup(os.chdir, before)
        self.assertEqual(self.directory("runtime"), self.fallback)

    def test_another_users_is_none(self) -> None:
        with mock.patch.object(os, "getuid", return_value=os.getuid() + 1):
            other = os.path.join(self.path("tmp"), f"caseexec-{os.getuid()}")
            self.assertEqual(self.directory(self.path("runtime")), other)


class ElsewhereTests(RecordCase):
    def start(self, **environment: str) -> int:
        process = subprocess.Popen(SLEEP, env={"PATH": os.environ["PATH"], **environment})
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.assertTrue(soon(lambda: processes.environment(process.pid)))
        return process.pid

    def test_a_service_without_an_environment_tells_by_its_descriptor(self) -> None:
        marker = processes.marker("c0de.1", note="/from/it")
        self.addCleanup(os.close, marker)
        process = subprocess.Popen(["/bin/sleep", "300"], env={}, pass_fds=[marker])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.assertEqual(record.elsewhere([process.pid]), ["/from/it"])

    def elsewhere(self, **environment: str) -> list[str]:
        return record.elsewhere([self.start(**{processes.MARK: "c0de.1", **environment})])

    def test_it_is_where_the_environment_of_a_service_leads_to(self) -> None:
        name = f"caseexec-{os.getuid()}"
        self.assertEqual(self.elsewhere(TMPDIR="/a", TMP="/b"), [f"/a/{name}"])
        self.assertEqual(self.elsewhere(TMP="/b", XDG_RUNTIME_DIR="/no/such"), [f"/b/{name}"])
        self.assertEqual(self.elsewhere(), [f"/tmp/{name}"])
        self.assertEqual(self.elsewhere(TMPDIR="/a", XDG_RUNTIME_DIR=self.path("tmp")), [self.path("tmp/caseexec")])

    def test_the_present_one_is_no_other(self) -> None:
        self.assertEqual(self.elsewhere(XDG_RUNTIME_DIR=self.path("runtime")), [])

    def test_a_relative_one_leads_nowhere(self) -> None:
        self.assertEqual(self.elsewhere(TMPDIR="a"), [])

    def test_a_stranger_leads_nowhere(self) -> None:
        self.assertEqual(record.elsewhere([self.start(TMPDIR="/a")]), [])

    def test_everybody_is_looked_at(self) -> None:
        self.start(**{processes.MARK: "c0de.1", "TMPDIR": self.path("tmp/x")})
        self.assertIn(self.path(f"tmp/x/caseexec-{os.getuid()}"), record.elsewhere())

    def test_records_there_are_read_too_if_they_can_be_trusted(self) -> None:
        there = self.make_dir("there")
        os.chmod(there, 0o700)
        record.write(a_run(), there)
        self.assertEqual([run.where for run in record.read_all([there, "/no/such"])], [there])
        os.chmod(there, 0o755)
        self.assertEqual(record.read_all([there]), [])


class TrustTests(RecordCase):
    def assert_refused(self, problem: str) -> None:
        with self.assertRaisesRegex(record.Refused, problem):
            record.write(a_run(), self.where)
        with self.assertRaisesRegex(record.Refused, problem):
            record.read_all()
        record.remove("c0de", self.where)

    def test_a_link_is_refused(self) -> None:
        target = self.make_dir("target")
        os.chmod(target, 0o700)
        os.symlink(target, self.where)
        self.assert_refused(f"{self.where} is no directory but a link; remove it")
        self.assertEqual(os.listdir(target), [])

    def test_a_file_is_refused(self) -> None:
        with open(self.where, "w"):
            pass
        self.assert_refused(f"{self.where} is no directory; remove it")

    @unittest.skipUnless(os.getuid() == 0, "only root can give a directory away")
    def test_somebody_elses_is_refused(self) -> None:
        record.write(a_run(), self.where)
        os.chown(self.where, NOBODY, NOBODY)
        name = processes.user_name(NOBODY)
        self.assert_refused(f"{self.where} belongs to user {name}; remove it, or set XDG_RUNTIME_DIR to one of yours")
        self.assertEqual(os.listdir(self.where), ["c0de.json"], "nor is anything removed there")

    def test_one_that_others_can_enter_is_refused(self) -> None:
        record.write(a_run(), self.where)
        for mode in (0o710, 0o701, 0o720, 0o704):
            os.chmod(self.where, mode)
            self.assert_refused(f"{self.where} can be entered by other users; remove it, or: chmod 700 {self.where}")
        self.assertEqual(os.listdir(self.where), ["c0de.json"])


class WriteTests(RecordCase):
    def test_it_is_there_until_it_is_removed(self) -> None:
        record.write(a_run(), self.where)
        (found,) = self.read()
        self.assertTrue(record.exists(found))
        record.remove(found.id, found.where)
        self.assertFalse(record.exists(found))

    def test_what_was_written_is_read(self) -> None:
        record.write(a_run(), self.where)
        self.assertEqual(self.read(), [a_run()])

    def test_directory_and_file_are_private_whatever_the_umask(self) -> None:
        self.addCleanup(os.umask, os.umask(0))
        record.write(a_run(), self.where)
        modes = [stat.S_IMODE(os.stat(path).st_mode) for path in (self.where, os.path.join(self.where, "c0de.json"))]
        self.assertEqual(modes, [0o700, 0o600])

    def test_it_takes_the_place_of_the_former_one_and_nothing_else_is_left(self) -> None:
        record.write(a_run(), self.where)
        record.write(a_run(command="later"), self.where)
        self.assertEqual([run.command for run in self.read()], ["later"])
        self.assertEqual(os.listdir(self.where), ["c0de.json"])

    def test_names_that_are_no_text_survive(self) -> None:
        run = a_run(cwd=os.fsdecode(b"/caf\xe9"), command="a\tb\n\x00")
        record.write(run, self.where)
        self.assertEqual(self.read(), [run])

    def test_one_that_cannot_be_written_leaves_nothing_half_done(self) -> None:
        record.write(a_run(), self.where)
        with (
            mock.patch.object(os, "replace", side_effect=OSError("no space")),
            self.assertRaisesRegex(OSError, "space"),
        ):
            record.write(a_run(command="later"), self.where)
        self.assertEqual(os.listdir(self.where), ["c0de.json"])
        self.assertEqual(self.read(), [a_run()])

    def test_nor_a_directory_that_was_made_for_it(self) -> None:
        with mock.patch.object(os, "replace", side_effect=OSError("no space")), self.assertRaises(OSError):
            record.write(a_run(), self.where)
        self.assertEqual(os.listdir(self.path("runtime")), [])

    def test_a_directory_that_cannot_be_made_is_an_error(self) -> None:
        with self.assertRaises(FileNotFoundError):
            record.write(a_run(), self.path("never/there"))

    def test_one_that_disappears_again_and_again_is_given_up(self) -> None:
        with mock.patch.object(place, "checked", side_effect=FileNotFoundError) as checked:
            with self.assertRaises(FileNotFoundError):
                record.write(a_run(), self.where)
        self.assertEqual(checked.call_count, files._TRIES)

    def test_a_reader_never_sees_a_torn_one(self) -> None:
        short, long = a_run(), a_run(command="x" * 200_000)
        record.write(short, self.where)
        done = threading.Event()
        problems: list[str] = []

        def read() -> None:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                while not done.is_set():
                    found = [len(run.command) for run in record.read_all()]
                    if found not in ([0], [200_000]):
                        problems.append(f"read {found}")
            problems.extend(str(warning.message) for warning in caught)

        reader = threading.Thread(target=read)
        reader.start()
        try:
            for _ in range(100):
                record.write(long, self.where)
                record.write(short, self.where)
        finally:
            done.set()
            reader.join()
        self.assertEqual(problems, [])


class RemoveTests(RecordCase):
    def test_the_directory_goes_with_the_last_record(self) -> None:
        record.write(a_run(), self.where)
        record.write(a_run(id="beef"), self.where)
        record.remove("beef", self.where)
        self.assertEqual(os.listdir(self.where), ["c0de.json"])
        record.remove("c0de", self.where)
        self.assertEqual(os.listdir(self.path("runtime")), [])

    def test_ids_that_contain_one_another_are_told_apart(self) -> None:
        for run_id in ("c0d", "c0de", "c0de1", "1c0de"):
            record.write(a_run(id=run_id), self.where)
        record.remove("c0de", self.where)
        self.assertEqual(sorted(os.listdir(self.where)), ["1c0de.json", "c0d.json", "c0de1.json"])

    def test_a_half_written_one_of_a_killed_run_goes_too(self) -> None:
        self.put(b"{", "c0de.json.0badf00d")
        record.remove("c0de", self.where)
        self.assertEqual(os.listdir(self.path("runtime")), [])

    def test_when_there_is_none_nothing_happens(self) -> None:
        record.remove("c0de", self.where)
        self.put(b"{}", "beef.json")
        record.remove("c0de", self.where)
        self.assertEqual(os.listdir(self.where), ["beef.json"])

    def test_many_runs_begin_and_end_at_once(self) -> None:
        program = """if True:
            import os, sys
            from caseexec import record
            from caseexec.record import RunRecord
            run = RunRecord(id=f"run{os.getpid()}", pid=os.getpid(), born=1, system=record.system())
            for _ in range(150):
                record.write(run, sys.argv[1])
                assert run.id in [found.id for found in record.read_all()]
                record.remove(run.id, sys.argv[1])
        """
        runs = [
            subprocess.Popen([sys.executable, "-W", "error", "-c", program, self.where], env={**os.environ, "PYTHONPATH": ROOT})
            for _ in range(4)
        ]  # fmt: skip
        self.assertEqual([run.wait(60) for run in runs], [0] * 4)
        self.assertEqual(os.listdir(self.path("runtime")), [])


class ReadTests(RecordCase):
    def test_without_a_directory_there_are_none(self) -> None:
        self.assertEqual(self.read(), [])

    def test_a_directory_that_disappears_meanwhile_holds_none(self) -> None:
        with mock.patch.object(os, "listdir", side_effect=FileNotFoundError):
            os.mkdir(self.where, 0o700)
            self.assertEqual(self.read(), [])

    def test_who_reads_can_say_what_becomes_of_an_unreadable_one(self) -> None:
        path, found = self.put(b"{"), []
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.assertEqual(record.read_all(unreadable=found.append), [])
        self.assertEqual([warning.path for warning in found], [path])

    def test_a_warning_names_the_line_of_the_reader(self) -> None:
        self.put(b"{")
        with self.assertWarns(RecordWarning) as caught:
            record.read_all()
        self.assertEqual(caught.filename, __file__)

    def test_a_record_that_disappears_meanwhile_is_passed_over(self) -> None:
        with mock.patch.object(os, "listdir", return_value=["beef.json", "c0de.json"]):
            record.write(a_run(), self.where)
            self.assertEqual(self.read(), [a_run()])

    def test_the_oldest_run_comes_first(self) -> None:
        for run_id, since in (("a", 3.0), ("b", 1), ("c", 2.5)):
            service = a_service(mark=f"{run_id}.1")
            record.write(a_run(id=run_id, since=since, services=(service,)), self.where)
        self.assertEqual([run.id for run in self.read()], ["b", "c", "a"])

    def test_those_of_another_machine_are_passed_over(self) -> None:
        record.write(a_run(system="another life"), self.where)
        self.assertEqual(self.read(), [])

    def test_one_of_an_earlier_boot_is_dead_whoever_has_its_pid_now(self) -> None:
        with (
            mock.patch.object(place, "system", return_value="host machine boot2 pid:[1]"),
            self.subTest("the machine was started again since"),
        ):
            record.write(a_run(system="host machine boot1 pid:[1]"), self.where)
            (found,) = self.read()
            self.assertFalse(found.alive)
        for elsewhere in ("host machine boot1 pid:[2]", "other machine boot2 pid:[1]", "host other boot2 pid:[1]"):
            with self.subTest(elsewhere), mock.patch.object(place, "system", return_value=elsewhere):
                self.assertEqual(self.read(), [])

    def test_other_files_are_none_of_its_business(self) -> None:
        self.put(b"{", "c0de.json.0badf00d")
        self.put(b"{", "notes.txt")
        self.assertEqual(self.read(), [])

    def test_one_that_is_told_does_not_hide_the_others(self) -> None:
        record.write(a_run(), self.where)
        self.put(b"{", "beef.json")
        with self.assertWarns(RecordWarning):
            self.assertEqual(record.read_all(), [a_run()])

    def test_what_is_no_record_is_told(self) -> None:
        for content, problem in (
            (b"", "Expecting value"),
            (json.dumps(asdict(a_run())).encode()[:-20], "line 1"),
            (b"\xff\xfe", "can't decode"),
            (b"[]", "it is not a record of format 1"),
            (b"null", "it is not a record of format 1"),
            (b"{}", "it is not a record of format 1"),
            (b'{"format": 1}', "it does not name 'id'"),
            (b"[" * 100_000, "recursion"),
            (b"9" * 5000, "."),
        ):
            with self.subTest(content[:20]):
                self.put(content)
                self.assert_told(problem)

    def test_what_has_other_facts_than_a_record_is_told(self) -> None:
        service = asdict(a_service())
        for facts, problem in (
            ({"format": 2}, "it is not a record of format 1"),
            ({"format": None}, "it is not a record of format 1"),
            ({"id": "beef"}, "it is not the record of the run that its name says"),
            ({"pid": "4"}, "pid is '4'"),
            ({"pid": 4.0}, "pid is 4.0"),
            ({"pid": True}, "pid is True"),
            ({"pid": 0}, "pid is 0"),
            ({"pid": -1}, "pid is -1"),
            ({"born": "1"}, "born is '1'"),
            ({"born": None}, "born is None"),
            ({"since": float("inf")}, "since is inf"),
            ({"since": float("nan")}, "since is nan"),
            ({"system": 1}, "system is 1"),
            ({"means": "group"}, "means is not made of strings"),
            ({"means": 1}, "means is not made of strings"),
            ({"paths": ["/a", 1]}, "paths is not made of strings"),
            ({"reaper": "5"}, "reaper is '5'"),
            ({"services": [{**service, "mark": "beef.1"}]}, "a mark in it is not one of its run's"),
            ({"services": None}, "not iterable"),
            ({"services": "abc"}, "indices"),
            ({"services": {"a": 1}}, "indices"),
            ({"services": [1]}, "not subscriptable"),
            ({"services": [{}]}, "it does not name 'mark'"),
            ({"services": [{**service, "pid": -1}]}, "pid is -1"),
            ({"services": [{**service, "stop_signal": "TERM"}]}, "stop_signal is 'TERM'"),
            ({"services": [{**service, "supervised": 1}]}, "supervised is 1"),
            ({"services": [{**service, "cgroup": None}]}, "cgroup is None"),
        ):
            with self.subTest(problem):
                self.put_changed(**facts)
                self.assert_told(problem)

    def test_further_facts_of_a_later_version_do_not_matter(self) -> None:
        self.put_changed(weather="fine")
        self.assertEqual(self.read(), [a_run()])

    def test_one_of_an_earlier_version_names_no_worker(self) -> None:
        facts = {**asdict(a_run()), "format": 1}
        del facts["worker"]
        self.put(json.dumps(facts).encode())
        self.assertEqual(self.read(), [a_run()])

    def test_a_run_without_a_reaper_is_read(self) -> None:
        self.put_changed(reaper=None)
        self.assertEqual(self.read(), [a_run(reaper=None)])

    def test_one_that_is_too_large_is_told(self) -> None:
        record.write(a_run(), self.where)
        with mock.patch.object(store, "_LARGEST", 10):
            self.assert_told("it is larger than 10 bytes")

    def test_one_that_others_can_read_or_write_is_told(self) -> None:
        record.write(a_run(), self.where)
        for mode in (0o620, 0o602, 0o640, 0o604):
            os.chmod(os.path.join(self.where, "c0de.json"), mode)
            self.assert_told("it is not a file that only this user can read and write")

    @unittest.skipUnless(os.getuid() == 0, "only root can give a file away")
    def test_somebody_elses_is_told(self) -> None:
        record.write(a_run(), self.where)
        os.chown(os.path.join(self.where, "c0de.json"), NOBODY, NOBODY)
        self.assert_told("it is not a file that only this user")

    def test_a_link_is_told(self) -> None:
        record.write(a_run(), self.where)
        os.rename(os.path.join(self.where, "c0de.json"), self.path("elsewhere"))
        os.symlink(self.path("elsewhere"), os.path.join(self.where, "c0de.json"))
        self.assert_told("symbolic links")

    def test_what_is_no_file_is_told_and_keeps_nobody_waiting(self) -> None:
        os.mkdir(self.where, 0o700)
        path = os.path.join(self.where, "c0de.json")
        for make, remove in ((os.mkfifo, os.unlink), (os.mkdir, os.rmdir)):
            with self.subTest(make.__name__):
                make(path, 0o600)
                self.assert_told("it is not a file that only this user")
                remove(path)


class AliveTests(unittest.TestCase):
    def test_a_run_lives_while_its_very_process_does(self) -> None:
        process = subprocess.Popen(SLEEP)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        run = a_run(pid=process.pid, born=born(process.pid))
        self.assertTrue(run.alive)
        self.assertFalse(replace(run, born=run.born - 1).alive)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        self.assertFalse(run.alive, "it is a zombie")
        process.wait()
        self.assertFalse(run.alive)

    def test_a_pid_that_there_cannot_be_is_nobodys(self) -> None:
        self.assertFalse(a_run(pid=10**30).alive)


# What JSON can say, with the names of a record among the keys.
_NAMES = st.sampled_from(["format", "id", *RunRecord.__dataclass_fields__, *ServiceRecord.__dataclass_fields__])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("c0de"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES | st.text(), inner, max_size=6),
    max_leaves=10,
)


class AnythingTests(unittest.TestCase):
    """Whatever lies in the directory: it is read or told, and never an exception."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="t-")
        self.addCleanup(directory.cleanup)
        patch = mock.patch.object(place, "directory", lambda: directory.name)
        patch.start()
        self.addCleanup(patch.stop)
        self.path = os.path.join(directory.name, "c0de.json")

    def read(self, content: bytes) -> list[RunRecord]:
        with open(self.path, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(content)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = record.read_all()
        self.assertLessEqual(len(found) + len(caught), 1)
        self.assertTrue(all(isinstance(warning.message, RecordWarning) for warning in caught))
        return found

    @settings(max_examples=60, deadline=None, database=None)
    @given(st.binary())
    def test_any_bytes(self, content: bytes) -> None:
        self.assertEqual(self.read(content), [])

    @settings(max_examples=60, deadline=None, database=None)
    @given(_VALUES)
    def test_any_json(self, value: object) -> None:
        self.read(json.dumps(value).encode())

    @settings(max_examples=60, deadline=None, database=None)
    @given(st.dictionaries(_NAMES, _VALUES, max_size=3), st.dictionaries(_NAMES, _VALUES, max_size=2))
    def test_any_change_of_a_record(self, of_run: dict[str, object], of_service: dict[str, object]) -> None:
        good = {"format": 1, **asdict(a_run())}
        service = {**asdict(a_service()), **of_service}
        for run in self.read(json.dumps({**good, "services": [service], **of_run}).encode()):
            with contextlib.redirect_stdout(io.StringIO()):
                print(run, run.alive, [found.leader for found in run.services])

    def test_the_unchanged_record_is_read(self) -> None:
        self.assertEqual(self.read(json.dumps({"format": 1, **asdict(a_run())}).encode()), [a_run()])


class OwnerTests(RecordCase):
    def start(self, mark: str | None) -> int:
        environment = {**os.environ, **({processes.MARK: mark} if mark else {})}
        process = subprocess.Popen(SLEEP, env=environment)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        # While the kernel loads a program its environment is empty.
        self.assertTrue(soon(lambda: processes.table().mark(process.pid) == mark))
        return process.pid

    def test_a_process_with_a_mark_tells_its_run_and_service(self) -> None:
        pid = self.start("c0de.1")
        record.write(a_run(services=(a_service(test_class="a.A", since=7),)), self.where)
        origin = record.owner(pid).origin
        self.assertEqual(
            (origin.run, origin.pid, origin.alive, origin.own, origin.service, origin.test_class, origin.since),
            ("c0de", os.getpid(), True, True, "redis", "a.A", 7),
        )

    def test_one_that_lost_its_mark_is_known_as_the_leader(self) -> None:
        pid = self.start(None)
        record.write(a_run(services=(a_service(pid=pid, born=born(pid)),)), self.where)
        self.assertEqual(record.owner(pid).origin.run, "c0de")
        record.write(a_run(services=(a_service(pid=pid, born=born(pid) - 1),)), self.where)
        self.assertIsNone(record.owner(pid).origin, "an earlier process had that pid")

    def test_marks_are_compared_whole(self) -> None:
        pid = self.start("c0de.12")
        record.write(a_run(), self.where)
        origin = record.owner(pid).origin
        self.assertEqual((origin.run, origin.pid, origin.service), ("c0de", None, ""))

    def test_a_stranger_has_none(self) -> None:
        record.write(a_run(), self.where)
        owner = record.owner(self.start(None))
        self.assertIsNone(owner.origin)
        self.assertIn("sleep", owner.command)

    def test_records_that_cannot_be_read_do_not_matter(self) -> None:
        pid = self.start("c0de.1")
        self.put(b"{")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.assertEqual(record.owner(pid).origin.run, "c0de")
            os.chmod(self.where, 0o777)
            self.assertEqual(record.owner(pid).origin.run, "c0de")


class SystemTests(unittest.TestCase):
    @unittest.skipUnless(sys.platform == "linux", "another system tells less")
    def test_it_names_the_boot_and_the_namespace(self) -> None:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
        self.assertTrue(record.system().endswith(f" {boot} {os.readlink('/proc/self/ns/pid')}"), record.system())
        self.assertTrue(record.system().startswith(f"{os.uname().nodename} "))

    def test_elsewhere_it_is_the_machines_name(self) -> None:
        with mock.patch.object(sys, "platform", "darwin"):
            self.assertEqual(record.system.__wrapped__(), os.uname().nodename)

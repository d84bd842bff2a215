"""Many classes in many workers at once, round after round: does anybody get somebody else's port, or stay?

``python -m tests.crowd --rounds 20`` runs 40 classes with ``pytest -n 8`` in each round, with the shared random generator
seeded in every worker alike, as test suites do. It tells what it has counted: leases that were lost and made anew, ports
that two had at a time, tests that failed, and processes and files that have remained.
"""

import argparse
import collections
import os
import subprocess
import sys
import tempfile
import textwrap
import time

from caseexec import processes
from tests.helpers.runs import ROOT

SUITE = """
    import os, random, socket, sys, textwrap, time
    from caseexec import ServicesMixin, TCPService, free_port, ports
    from caseexec.scopes import Launch

    def note(*words):
        with open({notes!r}, "a") as file:
            file.write(" ".join(map(str, words)) + "\\n")

    prepare, give_back = Launch._prepare, Launch._give_back

    def prepared(self, others):
        executor = prepare(self, others)
        self.had = getattr(self, "had", []) + [executor.port]
        note("begin", executor.port, time.monotonic(), os.getpid())
        return executor

    def given_back(self):
        had, self.had = getattr(self, "had", []), []
        note("attempts", len(had))
        for port in had:
            note("end", port, time.monotonic(), os.getpid())
        give_back(self)

    def lost(self):
        if error := sys.exc_info()[1]:
            note("lost", type(error).__name__, *str(error).split())
        give_back_directory(self)

    give_back_directory = Launch._give_back_directory
    Launch._prepare, Launch._give_back, Launch._give_back_directory = prepared, given_back, lost

    # Answers with the word that it was given, so that a stranger's answer is seen to be one.
    SERVER = '''
    import socket, sys
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(('127.0.0.1', int(sys.argv[1])))
    server.listen()
    while True:
        connection = server.accept()[0]
        connection.sendall(sys.argv[2].encode())
        connection.close()
    '''

    def server(word, **options):
        return TCPService(["{{python}}", "-I", "-S", "-c", textwrap.dedent(SERVER), "{{port}}", word], **options)

    SESSION = server("session", scope="session")

    def said(executor):
        with socket.create_connection((executor.host, executor.port)) as connection:
            return connection.recv(100).decode()

    class Base(ServicesMixin):
        def setUp(self):
            random.seed(1)

        def use(self, service, word):
            self.assertEqual(said(service), word)
            port = free_port()
            note("begin", port, time.monotonic(), os.getpid())
            with socket.socket() as sock:
                sock.bind(("127.0.0.1", port))
            note("end", port, time.monotonic(), os.getpid())
            ports.release(port)

    for number in range({classes}):
        scope = ("class", "class", "test", "module")[number % 4]
        word = "module" if scope == "module" else f"own-{{number}}"
        class Case(Base):
            session = SESSION
            own = server(word, scope=scope)
            word = word

            def test_a(self):
                self.use(self.own, self.word)

            def test_b(self):
                self.use(self.session, "session")
        globals()[f"Case{{number}}"] = type(f"Case{{number}}", (Case,), {{}})
    del Case, Base
"""


def collisions(lines: list[list[str]]) -> int:
    """How often a port was begun to be used while somebody still had it."""
    moments = sorted((float(when), kind == "begin", port) for kind, port, when, _ in lines)
    users: collections.Counter[str] = collections.Counter()
    found = 0
    for _, begins, port in moments:
        found += begins and users[port] > 0
        users[port] += 1 if begins else -1
    return found


def survivors(directory: str) -> list[str]:
    """What is left of a run that had this temporary directory."""
    table, left = processes.table(), []
    for pid in table.everybody():
        mark = processes.mark_of(table, pid)
        if mark and processes.environment(pid).get("TMPDIR") == directory:
            left.append(str(processes.describe(pid)))
    return left + sorted(name for name in os.listdir(directory) if not name.startswith("pytest-of-"))


def one_round(number: int, classes: int, workers: int) -> collections.Counter[str]:
    """Run the classes once; what was counted."""
    with tempfile.TemporaryDirectory(prefix="crowd-") as directory:
        tmp, notes = os.path.join(directory, "tmp"), os.path.join(directory, "notes")
        os.mkdir(tmp)
        with open(os.path.join(directory, "test_crowd.py"), "w") as file:
            file.write(textwrap.dedent(SUITE.format(notes=notes, classes=classes)))
        environment = {**os.environ, "TMPDIR": tmp, "PYTHONPATH": ROOT}
        environment.pop("XDG_RUNTIME_DIR", None)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", str(workers), "test_crowd.py"]
        run = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
        ended = time.monotonic()
        while (left := survivors(tmp)) and time.monotonic() < ended + 10:
            time.sleep(0.01)
        with open(notes) as file:
            lines = [line.split() for line in file]
        counted = collections.Counter(
            services=sum(line[0] == "attempts" for line in lines),
            lost_leases=sum(int(line[1]) - 1 for line in lines if line[0] == "attempts" and int(line[1])),
            collisions=collisions([line for line in lines if line[0] in ("begin", "end")]),
            survivors=len(left),
            failed_runs=int(run.returncode != 0),
        )
        for line in lines:
            if line[0] == "lost":
                print(*line)
        if run.returncode or left or counted["collisions"]:
            print(run.stdout[-3000:], run.stderr[-2000:], *left, sep="\n")
        print(f"round {number}: {run.stdout.strip().splitlines()[-1]}; {dict(counted)}", flush=True)
        return counted


def main() -> int:
    """Do what the command line says; 1: something went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.crowd", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--classes", type=int, default=40)
    parser.add_argument("--workers", type=int, default=8)
    options = parser.parse_args()
    total: collections.Counter[str] = collections.Counter()
    for number in range(1, options.rounds + 1):
        total.update(one_round(number, options.classes, options.workers))
    print(f"\n{options.rounds} rounds: {dict(total)}")
    return 1 if total["collisions"] or total["survivors"] or total["failed_runs"] else 0


if __name__ == "__main__":
    sys.exit(main())

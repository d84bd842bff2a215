"""The house as it is built: floors, cycles, who imports what."""

import ast
import os
import pathlib
import re
import subprocess
import sys
import unittest

import caseexec

PACKAGE = pathlib.Path(caseexec.__file__).parent
FLOORS = {
    "errors": 0,
    "holes": 0,
    "deadline": 1,
    "processes": 1,
    "placeholders": 1,
    "cgroup": 1,
    "directories": 1,
    "plan": 1,
    "leader": 1,
    "memory": 1,
    "output": 2,
    "progress": 2,
    "supervisor": 2,
    "members": 2,
    "record": 2,
    "cache": 3,
    "group": 3,
    "ports": 3,
    "probes": 4,
    "strangers": 4,
    "remains": 4,
    "reaper": 5,
    "registry": 5,
    "executors": 6,
    "signals": 6,
    "service": 7,
    "scopes": 8,
    "servers": 8,
    "mixins": 9,
    "django": 10,
    "cli": 10,
    "pytest_plugin": 11,
    "__main__": 11,
}


def room(module: str) -> str:
    """The room of a module: its name below the package."""
    return module.split(".")[1] if "." in module else ""


def imports(path: pathlib.Path) -> set[str]:
    """All modules of ours that a file imports, also late ones and those for types only."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{name.name}" if node.module == "caseexec" else node.module for name in node.names}
    return {module for module in found if module.partition(".")[0] == "caseexec"}


def top(module: str) -> str:
    """A module of ours, or the package that it is in."""
    return ".".join(module.split(".")[:2])


def files() -> list[pathlib.Path]:
    return [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]


def room_of(path: pathlib.Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


class HouseTests(unittest.TestCase):
    def test_every_room_has_a_floor(self) -> None:
        self.assertEqual({room_of(path) for path in files()}, set(FLOORS))

    def test_imports_point_to_lower_floors_only(self) -> None:
        for path in files():
            own = room_of(path)
            for module in imports(path):
                other = room(module)
                if other != own:
                    self.assertLess(FLOORS[other], FLOORS[own], f"{path.name} imports {module}")

    def test_a_room_of_several_modules_has_no_cycle(self) -> None:
        import graphlib

        for own in (
            "django", "errors", "executors", "mixins", "output", "ports", "probes", "processes", "pytest_plugin", "record",
            "registry", "scopes", "servers", "service",
        ):  # fmt: skip
            graph = {
                ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): {
                    module for module in imports(path) if module.startswith(f"caseexec.{own}.")
                }
                for path in (PACKAGE / own).rglob("*.py")
                if path.stem != "__init__"
            }
            self.assertEqual(len(list(graphlib.TopologicalSorter(graph).static_order())), len(graph))

    def test_every_module_has_a_test_of_its_name(self) -> None:
        tests = {path.stem for path in pathlib.Path(__file__).parent.glob("test_*.py")}
        self.assertEqual({f"test_{own}" for own in FLOORS if own != "__main__"} - tests, set())

    def test_only_one_room_imports_django_and_nobody_reads_a_clock_on_the_wall(self) -> None:
        for path in files():
            text = path.read_text()
            if room_of(path) != "django":
                self.assertNotRegex(text, r"(?m)^\s*(from|import) django\b")
            self.assertNotIn("time.sleep(0", text)

    def test_only_the_plugin_for_pytest_imports_pytest_and_nobody_imports_that(self) -> None:
        importing = {
            room_of(path) for path in files() if re.search(r"^\s*(import|from) _?pytest\b", path.read_text(), re.M)
        }
        self.assertEqual(importing, {"pytest_plugin"})
        theirs = {room_of(path) for path in files() if "caseexec.pytest_plugin" in map(top, imports(path))}
        self.assertEqual(theirs, {"pytest_plugin"})

    def test_the_warning_filters_of_all_threads_are_left_alone(self) -> None:
        for path in files():
            self.assertNotIn("catch_warnings", path.read_text(), path)


class PackageTests(unittest.TestCase):
    def test_everything_it_names_is_there_and_sorted(self) -> None:
        self.assertEqual(caseexec.__all__, sorted(caseexec.__all__))
        for name in caseexec.__all__:
            self.assertIsNotNone(getattr(caseexec, name))
        self.assertEqual(set(dir(caseexec)), {*caseexec.__all__, "__version__"})

    def test_it_knows_its_version(self) -> None:
        from importlib.metadata import version

        self.assertEqual(caseexec.__version__, version("caseexec"))

    def test_a_name_it_does_not_have_is_an_attribute_error(self) -> None:
        with self.assertRaisesRegex(AttributeError, "module 'caseexec' has no attribute 'TCPExecuter'"):
            _ = caseexec.TCPExecuter

    def python(self, program: str) -> str:
        root = os.path.dirname(PACKAGE)
        return subprocess.run(
            [sys.executable, "-c", program], cwd=root, check=True, capture_output=True, text=True
        ).stdout.strip()

    def test_importing_it_loads_neither_psutil_nor_http(self) -> None:
        program = (
            "import sys, caseexec; from caseexec import TCPExecutor; print([name for name in ('psutil', 'http.client',"
        )
        self.assertEqual(self.python(program + " 'ssl', 'logging', 'unittest') if name in sys.modules])"), "[]")

    def test_importing_it_leaves_no_thread_no_signal_handler_and_no_exit_handler(self) -> None:
        program = """if True:
            import atexit, signal, sys, threading
            handlers = [signal.getsignal(number) for number in signal.valid_signals()]
            before = atexit._ncallbacks()
            from caseexec import *
            assert handlers == [signal.getsignal(number) for number in signal.valid_signals()]
            print(atexit._ncallbacks() - before, threading.active_count())
        """
        self.assertEqual(self.python(program), "0 1")

    def test_it_can_be_imported_where_posix_is_missing(self) -> None:
        program = """if True:
            import asyncio, os, select, signal, socket, subprocess, sys, tempfile, unittest  # before things are taken away
            for module, names in ((signal, ["SIGKILL", "pidfd_send_signal"]), (socket, ["AF_UNIX", "AF_NETLINK"]),
                                  (os, ["killpg", "waitid", "pidfd_open", "fork", "getpgid", "WNOWAIT", "O_CLOEXEC", "pread"]),
                                  (select, ["poll"])):
                for name in names:
                    if hasattr(module, name):
                        delattr(module, name)
            sys.modules["pwd"] = sys.modules["fcntl"] = sys.modules["resource"] = None
            sys.platform, os.name = "win32", "nt"
            from caseexec import *
            try:
                SimpleExecutor("x").start()
            except UnsupportedPlatform as error:
                print(error.headline())
        """
        self.assertIn("not on Windows", self.python(program))


class TypesTests(unittest.TestCase):
    def test_typical_uses_are_typed(self) -> None:
        try:
            from mypy import api
        except ImportError:
            self.skipTest("mypy is not installed: pip install mypy")
        example = pathlib.Path(__file__).parent / "typing_examples.py"
        output, problems, code = api.run(["--strict", "--cache-dir", os.devnull, str(example)])
        self.assertEqual((code, problems), (0, ""), output)

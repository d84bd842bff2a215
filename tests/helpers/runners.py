"""The test runners, and how each is asked to run the test modules of the directory it is in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version


@dataclass(frozen=True)
class Runner:
    """One way to run a suite.

    :ivar command: what the interpreter is given.
    :ivar packages: what has to be installed for it, by its names on PyPI, with blanks between them.
    :ivar names_modules: whether it wants to be told the modules' names.
    :ivar files: what must be beside the tests, by name.
    :ivar variables: its environment.
    :ivar workers: in how many processes the tests are run.
    :ivar litters: whether it leaves temporary files of its own.
    :ivar remembers: whether it goes on after the first Ctrl-C until the test is over.
    """

    command: tuple[str, ...]
    packages: str = ""
    names_modules: bool = False
    files: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    workers: int = 1
    litters: bool = False
    remembers: bool = False

    def missing(self) -> str:
        """What to do before it can be used; empty: nothing."""
        for package in self.packages.split():
            try:
                version(package)
            except PackageNotFoundError:
                return f"{package} is not installed: pip install {package}"
        return ""


def _pytest(packages: str, *options: str, **about) -> Runner:
    ours = ("-p", "caseexec.pytest_plugin")  # As pytest does by itself where it may load what is installed.
    return Runner(("-m", "pytest", "-q", "-p", "no:cacheprovider", *ours, *options), packages, **about)


# These two look at each attribute of a class, and so at services that do not run yet.
_NOSE2 = {
    "unittest.cfg": """
        [unittest]
        exclude-plugins = nose2.plugins.loader.generators
            nose2.plugins.loader.parameters
    """
}
_STESTR = {".stestr.conf": "[DEFAULT]\ntest_path=.\ngroup_regex=([^.]+[.])+\n"}
_SITE = {
    "site_settings.py": 'DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}\n',
}


# The run has services, too: the same as the classes.
_SITE_WITH_SERVICES = {
    "site_settings.py": """
        from caseexec import TCPService
        from caseexec.registry import current_run
        from tests.helpers import faulty

        DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
        TEST_RUNNER = "caseexec.django.ServicesRunner"
        CASEEXEC_SERVICES = {
            "first": TCPService(faulty.service(faulty.FAMILY)),
            "second": TCPService(faulty.service(faulty.FAMILY), after=("first",)),
        }
        CASEEXEC_SETTINGS = {"PORTS": ["{first.port}", "{second.port}"]}
        faulty.note("runs", current_run().id)
    """
}


def _django(packages: str, *options: str, workers: int = 1, files: Mapping[str, str] = _SITE) -> Runner:
    return Runner(
        ("-m", "django", "test", "-v0", *options), packages, files=files,
        variables={"DJANGO_SETTINGS_MODULE": "site_settings"}, remembers=True, workers=workers,
    )  # fmt: skip


def _nose2(*options: str, workers: int = 1) -> Runner:
    return Runner(("-m", "nose2", *options), "nose2", files=_NOSE2, workers=workers)


def _parallel(level: str) -> Runner:
    command = ("-m", "unittest_parallel", "-j", "2", "--level", level)
    return Runner(command, "unittest-parallel", workers=2, litters=True)


RUNNERS = {
    "unittest": Runner(("-m", "unittest", "discover", "-q")),
    "unittest -c": Runner(("-m", "unittest", "discover", "-q", "-c"), remembers=True),
    "unittest -c -f": Runner(("-m", "unittest", "discover", "-q", "-c", "-f"), remembers=True),
    "pytest": _pytest("pytest"),
    "pytest -n 2": _pytest("pytest-xdist", "-p", "xdist", "-n", "2", "--basetemp", "pytest", workers=2),
    "django": _django("django"),
    "django --parallel 2": _django("django tblib", "--parallel", "2", workers=2),
    "django with services": _django("django", files=_SITE_WITH_SERVICES),
    "django with services --parallel 2": _django(
        "django tblib", "--parallel", "2", workers=2, files=_SITE_WITH_SERVICES
    ),
    "nose2": _nose2(),
    "nose2 -N 2": _nose2("--plugin", "nose2.plugins.mp", "-N", "2", workers=2),
    "testtools": Runner(("-m", "testtools.run", "discover"), "testtools"),
    "stestr": Runner(("-m", "stestr", "run", "--concurrency", "2"), "stestr", files=_STESTR, workers=2, litters=True),
    "green": Runner(("-m", "green", "-s", "2"), "green", workers=2, litters=True, remembers=True),
    "unittest-parallel module": _parallel("module"),
    "unittest-parallel class": _parallel("class"),
    "unittest-parallel test": _parallel("test"),
    "trial": Runner(("-m", "twisted.trial"), "twisted", names_modules=True),
    "zope.testrunner": Runner(
        ("-m", "zope.testrunner", "--test-path", ".", "--tests-pattern", "^test_"), "zope.testrunner"
    ),
}

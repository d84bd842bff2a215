"""A unittest.TestCase with real services: started before the class, ready when they answer, gone afterwards.

The names below are loaded when they are first used, so that ``import caseexec`` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from caseexec.errors import (
        AlreadyRunning,
        CommandNotExecutable,
        CommandNotFound,
        DeclarationError,
        ExecutorError,
        ForcedKillWarning,
        LeakedProcessWarning,
        ProcessExitedWithError,
        ProcessFinishedWithError,
        ReaperWarning,
        RecordWarning,
        ServiceNotStarted,
        TimeoutExpired,
        UnsupportedPlatform,
    )
    from caseexec.executors import (
        CommandExecutor,
        Executor,
        HTTPExecutor,
        OutputExecutor,
        PidExecutor,
        SimpleExecutor,
        TCPExecutor,
        UnixSocketExecutor,
    )
    from caseexec.mixins import (
        CommandServiceMixin,
        HTTPServiceMixin,
        OutputServiceMixin,
        PidServiceMixin,
        TCPServiceMixin,
        UnixSocketServiceMixin,
    )
    from caseexec.ports import free_port
    from caseexec.probes import NotReady, Probe, all_of, any_of
    from caseexec.signals import install_signal_handlers

    __version__: str

__all__ = [
    "AlreadyRunning",
    "CommandExecutor",
    "CommandNotExecutable",
    "CommandNotFound",
    "CommandServiceMixin",
    "DeclarationError",
    "Executor",
    "ExecutorError",
    "ForcedKillWarning",
    "HTTPExecutor",
    "HTTPServiceMixin",
    "LeakedProcessWarning",
    "NotReady",
    "OutputExecutor",
    "OutputServiceMixin",
    "PidExecutor",
    "PidServiceMixin",
    "Probe",
    "ProcessExitedWithError",
    "ProcessFinishedWithError",
    "ReaperWarning",
    "RecordWarning",
    "ServiceNotStarted",
    "SimpleExecutor",
    "TCPExecutor",
    "TCPServiceMixin",
    "TimeoutExpired",
    "UnixSocketExecutor",
    "UnixSocketServiceMixin",
    "UnsupportedPlatform",
    "all_of",
    "any_of",
    "free_port",
    "install_signal_handlers",
]

_MODULES = ("errors", "executors", "ports", "probes", "mixins", "signals")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("caseexec")
    if name in __all__:
        for module in _MODULES:
            found = getattr(import_module(f"caseexec.{module}"), name, None)
            if found is not None:
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

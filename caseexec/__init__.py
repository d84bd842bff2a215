"""A unittest.TestCase with real services: started before the class, ready when they answer, gone afterwards.

The names below are loaded when they are first used, so that ``import caseexec`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module

# Not typing's, which takes a megabyte: the reaper imports this too. Type checkers know the name.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from caseexec.errors import (
        AlreadyRunning,
        CommandNotExecutable,
        CommandNotFound,
        CrashWarning,
        DeclarationError,
        ExecutorError,
        ForcedKillWarning,
        LeakedProcessWarning,
        NotOurs,
        OutputNotFound,
        PreparationFailed,
        ProcessExitedWithError,
        ProcessFinishedWithError,
        ReaperWarning,
        RecordWarning,
        ServiceDied,
        ServiceNotStarted,
        ServiceUnavailable,
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
        ServicesMixin,
        TCPServiceMixin,
        UnixSocketServiceMixin,
    )
    from caseexec.ports import free_port
    from caseexec.probes import NotReady, Probe, all_of, any_of
    from caseexec.service import (
        CommandService,
        HTTPService,
        OneShot,
        OutputService,
        PidService,
        TCPService,
        UnixSocketService,
    )
    from caseexec.signals import install_signal_handlers

    __version__: str

__all__ = [
    "AlreadyRunning",
    "CommandExecutor",
    "CommandNotExecutable",
    "CommandNotFound",
    "CommandService",
    "CommandServiceMixin",
    "CrashWarning",
    "DeclarationError",
    "Executor",
    "ExecutorError",
    "ForcedKillWarning",
    "HTTPExecutor",
    "HTTPService",
    "HTTPServiceMixin",
    "LeakedProcessWarning",
    "NotOurs",
    "NotReady",
    "OneShot",
    "OutputExecutor",
    "OutputNotFound",
    "OutputService",
    "OutputServiceMixin",
    "PidExecutor",
    "PidService",
    "PidServiceMixin",
    "PreparationFailed",
    "Probe",
    "ProcessExitedWithError",
    "ProcessFinishedWithError",
    "ReaperWarning",
    "RecordWarning",
    "ServiceDied",
    "ServiceNotStarted",
    "ServiceUnavailable",
    "ServicesMixin",
    "SimpleExecutor",
    "TCPExecutor",
    "TCPService",
    "TCPServiceMixin",
    "TimeoutExpired",
    "UnixSocketExecutor",
    "UnixSocketService",
    "UnixSocketServiceMixin",
    "UnsupportedPlatform",
    "all_of",
    "any_of",
    "free_port",
    "install_signal_handlers",
]

_MODULES = ("errors", "executors", "ports", "probes", "service", "mixins", "signals")


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

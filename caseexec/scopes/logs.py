"""Where a service's output goes, and whether it stays."""

from __future__ import annotations

import itertools
import os

from caseexec.errors import DeclarationError
from caseexec.executors import Declared
from caseexec.output import OutputLog, safe_name
from caseexec.registry import Run
from caseexec.scopes.keeping import keeping

__all__ = ["DIRECTORY", "Log"]

# Its frames are left out of the traceback of a failed class, by unittest and by pytest.
__unittest = __tracebackhide__ = True

DIRECTORY = "CASEEXEC_LOG_DIR"
"""The environment variable that names a directory in which all logs stay."""


# Who writes into each file in that directory: one that is started again goes on in its own.
_users: dict[str, str] = {}


class Log:
    """The log of one life of a service, through all its starts.

    :ivar stays: it is kept when the service is over, as somebody is told of it.
    """

    def __init__(self, run: Run, declared: Declared) -> None:
        self.stays = False
        self._run = run
        self._declared = declared
        self._file: OutputLog | None = None
        self._is_temporary = True

    def begin(self) -> OutputLog:
        """The file. It is not there before something is to be written into it.

        :raises DeclarationError: it cannot be in the directory that the user wants.
        """
        if self._file is None:
            self._file = OutputLog(path=self._path())
        return self._file

    def _path(self) -> str:
        directory = keeping.log_directory or os.environ.get(DIRECTORY)
        self._is_temporary = not directory
        who, worker = self._declared.who, f"-{safe_name(self._run.worker)}" if self._run.worker else ""
        if not directory:
            return self._run.temporary_path(f"{worker}-{safe_name(who)}.log")
        try:
            os.makedirs(directory, exist_ok=True)
        except OSError as error:
            where = "--caseexec-log-dir" if keeping.log_directory else DIRECTORY
            raise DeclarationError(where, f"no log can be kept in {directory!r}: {error.strerror}") from None
        plain = f"{self._run.id}{worker}-{safe_name(who)}"
        for name in itertools.chain([plain], (f"{plain}-{number}" for number in itertools.count(2))):
            path = os.path.join(os.path.abspath(directory), f"{name}.log")
            # Two may be the same with all that is no letter of ASCII left out.
            if _users.setdefault(path, who) == who:
                return path
        raise AssertionError("unreachable")

    def is_empty(self) -> bool:
        """Whether nothing was written yet."""
        return self._file is None or self._file.is_empty()

    def end(self) -> None:
        """Close it, and remove it unless it is to stay."""
        # Once only: one that was kept must not be removed by whoever gives back again.
        file, self._file = self._file, None
        if file is None:
            return
        empty = file.is_empty()
        file.close()
        if keeping.everything and not empty:
            keeping.kept.append((self._declared.who, file.path))
        if not self._is_temporary:
            return
        stays = self.stays or keeping.everything
        if stays and not empty and not self._run.is_orphan():  # Then nobody reads what names it.
            self._run.keep(file.path)
        else:
            self._run.remove(file.path)

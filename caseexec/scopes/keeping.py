"""What stays of services when they are over, by the wish of whoever runs the tests."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Keeping", "keeping"]


@dataclass
class Keeping:
    """What stays of the services of this process.

    :ivar log_directory: where all logs stay; empty: where ``CASEEXEC_LOG_DIR`` says, or nowhere.
    :ivar everything: their logs stay, and their temporary directories.
    :ivar kept: what has stayed for that reason: whose it is, and its path.
    """

    log_directory: str = ""
    everything: bool = False
    kept: list[tuple[str, str]] = field(default_factory=list)


keeping = Keeping()
"""What is asked for now; a test runner may change it, before the first service is started."""

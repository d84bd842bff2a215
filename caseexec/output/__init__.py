"""A service's captured output, in a file: its tail, what came since a mark, a search, a reader.

A file never blocks the service, however much it writes and whether or not somebody reads, and it outlives the service.
The reaper frees the head of one that becomes too large (:mod:`caseexec.holes`); a line in brackets tells how much is
left out there.
"""

from caseexec.output.capture import Capture
from caseexec.output.log import TAIL_BYTES, TAIL_LINES, OutputLog, safe_name
from caseexec.output.search import Search

__all__ = ["TAIL_BYTES", "TAIL_LINES", "Capture", "OutputLog", "Search", "safe_name"]

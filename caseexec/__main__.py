"""``python -m caseexec``."""

from caseexec.cli import main

main()

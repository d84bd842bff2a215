"""The tests of caseexec."""

import signal

# A shell's background job ignores Ctrl-C, and Python leaves that so; the tests interrupt themselves.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

"""What these suites share: which servers they need, where those are, and the user that those run as."""

import functools
import glob
import os
import pwd
import re
import shutil
import subprocess
import unittest
from importlib.util import find_spec

# Some servers refuse to run as root. Run by root, this puts a command under another user; else it is empty.
ORDINARY_USER = ""
# And this gives that user a directory, with everything in it.
GIVE_TO_ORDINARY_USER = ":"
if os.geteuid() == 0:
    _nobody = pwd.getpwnam("nobody")
    ORDINARY_USER = f"setpriv --reuid={_nobody.pw_uid} --regid={_nobody.pw_gid} --clear-groups"
    GIVE_TO_ORDINARY_USER = f"chown -R {_nobody.pw_uid}:{_nobody.pw_gid}"


def require(program="", package="", client=""):
    """Skip a test class whose server or client is not installed; with CASEEXEC_REQUIRE=1, fail it.

    :param program: the server.
    :param package: what Debian calls its package.
    :param client: the Python module of a client library, called the same on PyPI.
    """
    reasons = []
    if program and not shutil.which(program, path=path()):
        reasons.append(f"{program} is not installed: apt-get install {package}")
    if client and find_spec(client) is None:
        reasons.append(f"{client} is not installed: pip install {client}")

    def decorate(cls):
        if reasons:
            cls.setUpClass = classmethod(fail)
        return cls

    def fail(cls):
        raise missing("; ".join(reasons))

    return decorate


def missing(reason):
    """What to raise where something is not installed."""
    required = os.environ.get("CASEEXEC_REQUIRE") == "1"
    return AssertionError(f"{reason} (CASEEXEC_REQUIRE=1)") if required else unittest.SkipTest(reason)


@functools.cache
def path():
    """The PATH, with the directories that only root has on it, and PostgreSQL's own in front."""
    found = [*_postgresql(), os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"]
    return os.pathsep.join(found)


def _postgresql():
    # Debian's programs of that name on the PATH are wrappers, and initdb and postgres are not among them.
    places = glob.glob("/usr/lib/postgresql/*/bin")
    places.sort(key=lambda place: [int(number) for number in re.findall(r"\d+", place)], reverse=True)
    if shutil.which("pg_config"):
        asked = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=False)
        places.insert(0, asked.stdout.strip())
    return [place for place in places if os.access(os.path.join(place, "initdb"), os.X_OK)][:1]

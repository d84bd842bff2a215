"""Tiny real programs, named by what they do. Each is a command for an executor."""

import sys
import textwrap


def python(source: str, *arguments: object) -> list[str]:
    """A command that runs a piece of Python, in an interpreter that starts fast."""
    return [sys.executable, "-I", "-S", "-u", "-c", textwrap.dedent(source), *map(str, arguments)]


SLEEP = ["sleep", "300"]
EXIT_TRUE = ["true"]
EXIT_3 = python("print('it hurts'); raise SystemExit(3)")
DIES_BY_SEGV = python("import os, signal; print('oh'); os.kill(os.getpid(), signal.SIGSEGV)")
IGNORES_TERM = python("import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf'); time.sleep(300)")

# A leader and 20 children, all deaf to SIGTERM.
STUBBORN_FAMILY = python("""
    import os, signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for _ in range(20):
        if os.fork() == 0:
            break
    else:
        print('family complete')
    time.sleep(300)
""")

# Goes to the background as daemons do, and leaves the session; writes the daemon's pid into the file.
DOUBLE_FORKS = """
    import os, sys, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            with open(sys.argv[1] + '.new', 'w') as file:
                file.write(str(os.getpid()))
            os.rename(sys.argv[1] + '.new', sys.argv[1])
            time.sleep(300)
        os._exit(0)
    os.wait()
"""

# Stays, with a child in a session of its own whose environment is empty.
CHILD_LEAVES = """
    import os, sys, time
    if os.fork() == 0:
        os.setsid()
        os.execve('/bin/sh', ['sh', '-c', 'echo $$ >"$0.new"; mv "$0.new" "$0"; exec sleep 300', sys.argv[1]], {})
    time.sleep(300)
"""

# Goes to the background and leaves no trace: no session, parent, environment or descriptor of its own. Before that it
# waits until the second argument is in the name of its cgroup; then it writes the daemon's pid into the first.
VANISHES = """
    import os, sys, time
    while sys.argv[2] not in open('/proc/self/cgroup').read():
        time.sleep(0.001)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(3, 1000)
            program = 'echo $$ >"$0.new"; mv "$0.new" "$0"; exec sleep 300'
            os.execve('/bin/sh', ['sh', '-c', program, sys.argv[1]], {})
        os._exit(0)
    os.wait()
"""

TCP_SERVER = """
    import socket, sys, time
    time.sleep(float(sys.argv[2]) if len(sys.argv) > 2 else 0)
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(('127.0.0.1', int(sys.argv[1])))
    server.listen()
    print('listening on', sys.argv[1])
    while True:
        server.accept()[0].close()
"""

TCP_DAEMON = """
    import os, socket, sys, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(0.05)
            server = socket.socket()
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(('127.0.0.1', int(sys.argv[1])))
            server.listen()
            while True:
                server.accept()[0].close()
        os._exit(0)
"""

UNIX_SERVER = """
    import socket, sys
    server = socket.socket(socket.AF_UNIX)
    server.bind(sys.argv[1])
    server.listen()
    while True:
        server.accept()[0].close()
"""

# Answers each request with the next of the statuses given, and with the last one ever after; writes what was asked.
HTTP_SERVER = """
    import socket, sys
    statuses = sys.argv[2:] or ['200']
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(('127.0.0.1', int(sys.argv[1])))
    server.listen()
    while True:
        connection = server.accept()[0]
        request = b''
        while b'\\r\\n\\r\\n' not in request:
            data = connection.recv(65536)
            if not data:
                break
            request += data
        if request:
            print(request.decode())
            status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
            connection.sendall(f'HTTP/1.1 {status} As You Like\\r\\nContent-Length: 0\\r\\n\\r\\n'.encode())
        connection.close()
"""

ACCEPTS_BUT_NEVER_ANSWERS = """
    import socket, sys
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(('127.0.0.1', int(sys.argv[1])))
    server.listen()
    connections = []
    while True:
        connections.append(server.accept())
"""

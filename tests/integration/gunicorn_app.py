"""The application that gunicorn serves in test_gunicorn.py: who it is, and how it is asked to be."""

import os


def application(environ, start_response):
    """Answer with the pid of the worker and of its master, and with the variable GREETING."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {os.getppid()} {os.environ.get('GREETING', '')}".encode()]


# Each worker loads this when it has its signal handlers.
print("the application is loaded", flush=True)

"""The commands of the five services, and when PostgreSQL is ready; the same for all forms.

``{host}``, ``{port}``, ``{tmp}`` and ``{redis.port}`` are filled in by each form. In the environment: PATH with the
servers on it; SHOP_DATABASE, the database that each start copies; SHOP_USER, what puts a command under another user
than root (or nothing), and SHOP_GIVE, what gives that user a directory.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import psycopg

HOST = "127.0.0.1"

REDIS = "redis-server --bind {host} --port {port} --save '' --dir {tmp}"

MEMCACHED = "memcached -u nobody -l {host} -p {port} -U 0"

NGINX = """
mkdir pages; echo 'It works' > pages/index.txt
cat > nginx.conf <<'END'
daemon off;
user root;
pid nginx.pid;
worker_processes 1;
events { worker_connections 64; }
http {
    access_log off;
    client_body_temp_path a; proxy_temp_path b; fastcgi_temp_path c; uwsgi_temp_path d; scgi_temp_path e;
    server { listen {host}:{port}; root pages; location = /health { return 204; } }
}
END
exec nginx -p {tmp} -e stderr -c nginx.conf
"""

POSTGRESQL = """
cp -a "$SHOP_DATABASE" data && $SHOP_GIVE . &&
exec $SHOP_USER postgres -D data -c fsync=off -h {host} -p {port} -k {tmp}
"""

WEB = [
    sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "webapp.py"),
    "{host}", "{port}", "{redis.port}", "{postgresql.port}",
]  # fmt: skip


def database(service: Any) -> psycopg.Connection[tuple[Any, ...]]:
    return psycopg.connect(host=service.host, port=service.port, user="postgres", autocommit=True, connect_timeout=10)


def accepts_clients(service: Any) -> bool:
    """PostgreSQL listens before it accepts clients."""
    try:
        database(service).close()
    except psycopg.OperationalError:
        return False
    return True

"""A small web application: it counts visits in Redis, and writes them down in PostgreSQL.

``webapp.py HOST PORT REDIS_PORT POSTGRESQL_PORT``
"""

import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

import psycopg
import redis


def serve(host: str, port: int, redis_port: int, postgresql_port: int) -> None:
    cache = redis.Redis(host, redis_port)
    cache.ping()
    database = psycopg.connect(host=host, port=postgresql_port, user="postgres", autocommit=True)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = b"well"
            if self.path != "/health":
                database.execute("INSERT INTO visits VALUES (%s)", [self.path])
                answer = b"%d" % cache.incr("visits")
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: object) -> None:
            pass

    HTTPServer((host, port), Handler).serve_forever()


if __name__ == "__main__":
    serve(sys.argv[1], *map(int, sys.argv[2:]))

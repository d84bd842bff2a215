"""The web application of the examples: it counts visits in Redis. Run as ``python shop.py PORT REDIS_ADDRESS``."""

import http.server
import sys

import redis

host, port = sys.argv[2].split(":")
cache = redis.Redis(host, int(port), decode_responses=True)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ready = self.path == "/health" and cache.ping()
        body = "ok" if ready else f"{cache.get('greeting') or 'hello'}, visitor {cache.incr('visits')}"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args):
        print("answering", self.path, flush=True)


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()

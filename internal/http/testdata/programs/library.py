"""HTTP/1.1 by Python's own library.

library.py serve
    serves until it is killed: prints its port, and one record for each request
library.py fetch URL...
    makes one request after the other, with http.client, and prints a record for each
"""

import http.client
import http.server
import json
import sys
import threading
import time
import urllib.parse

lock = threading.Lock()


def say(**record):
    with lock:
        print(json.dumps(record), flush=True)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        start = time.monotonic_ns()
        received = len(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        size, status = int(query.get("size", 0)), int(query.get("status", 200))
        self.send_response(status)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        self.wfile.write(b"y" * size)
        say(method=self.command, path=url.path, status=status, received=received, sent=size,
            ns=time.monotonic_ns() - start)

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def log_message(self, *_):
        pass


def serve():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    say(port=server.server_port)
    server.serve_forever()


def fetch(*urls):
    connections = {}
    for number, address in enumerate(urls):
        url = urllib.parse.urlsplit(address)
        connection = connections.setdefault(url.netloc, http.client.HTTPConnection(url.netloc))
        start = time.monotonic_ns()
        connection.request("POST", f"{url.path}?{url.query}", body=b"x" * (number * 1000))
        response = connection.getresponse()
        received = len(response.read())
        say(method="POST", path=url.path, status=response.status, sent=number * 1000, received=received,
            ns=time.monotonic_ns() - start)


globals()[sys.argv[1]](*sys.argv[2:])

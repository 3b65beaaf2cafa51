"""Answers as the header Bench of a request says: status, size, and whether the body is chunked.

When its input ends, it prints what it has done, a line of JSON for each request, and ends.
"""

import http.server
import json
import sys
import threading
import time

CHUNK = bytes(64 << 10)
records = []


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are written one after the other

    def parse_request(self):
        self.started = time.monotonic_ns()  # the request line was read
        return super().parse_request()

    def answer(self):
        chunked_request = self.headers.get("Transfer-Encoding") == "chunked"
        received = self.receive_chunks() if chunked_request else self.receive(int(self.headers.get("Content-Length", 0)))
        status, size, chunked = self.headers["Bench"].split()
        status, size, chunked = int(status), int(size), chunked == "true"
        bodiless = status in (204, 304)
        self.send_response(status)
        if chunked and not bodiless:
            self.send_header("Transfer-Encoding", "chunked")
        elif not bodiless:
            self.send_header("Content-Length", str(size))
        self.end_headers()
        sent = 0 if bodiless or self.command == "HEAD" else self.send(size, chunked)
        records.append({
            "Method": self.command, "Path": self.path, "Status": status, "Version": self.request_version[len("HTTP/"):],
            "SentBytes": sent, "ReceivedBytes": received,
            "ChunkedRequest": chunked_request, "ChunkedResponse": chunked and not bodiless,
            "Ns": time.monotonic_ns() - self.started,
        })

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    def receive(self, size):
        left = size
        while left > 0:
            left -= len(self.rfile.read(min(left, len(CHUNK))))
        return size

    def receive_chunks(self):
        received = 0
        while size := int(self.rfile.readline(), 16):
            received += self.receive(size)
            self.rfile.readline()
        self.rfile.readline()
        return received

    def send(self, size, chunked):
        left = size
        while left > 0:
            piece = CHUNK[:left]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            left -= len(piece)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")
        return size

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128


server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
for record in records:
    print(json.dumps(record))

"""HTTP/1.1 by Python's own library.

library.py serve
    serves until it is killed: prints its port, and one record for each request
library.py fetch URL...
    makes one request after the other, with http.client, and prints a record for each
library.py fetch_async URL...
    the same with asyncio, all at once, each on a connection of its own

It serves HTTPS where EBPFRECEIVER_TEST_CERTIFICATE is a file with a certificate and its key. Certificates of others are
not verified.
"""

import asyncio
import http.client
import http.server
import json
import os
import ssl
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
    if certificate := os.environ.get("EBPFRECEIVER_TEST_CERTIFICATE"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    say(port=server.server_port)
    server.serve_forever()


def unverified():
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def connect(url):
    if url.scheme == "https":
        return http.client.HTTPSConnection(url.netloc, context=unverified())
    return http.client.HTTPConnection(url.netloc)


def fetch(*urls):
    connections = {}
    for number, address in enumerate(urls):
        url = urllib.parse.urlsplit(address)
        connection = connections.setdefault(url.netloc, connect(url))
        start = time.monotonic_ns()
        connection.request("POST", f"{url.path}?{url.query}", body=b"x" * (number * 1000))
        response = connection.getresponse()
        received = len(response.read())
        say(method="POST", path=url.path, status=response.status, sent=number * 1000, received=received,
            ns=time.monotonic_ns() - start)


async def exchange(number, address):
    url = urllib.parse.urlsplit(address)
    reader, writer = await asyncio.open_connection(
        url.hostname, url.port, ssl=unverified() if url.scheme == "https" else None)
    body = b"x" * (number * 1000)
    start = time.monotonic_ns()
    writer.write(f"POST {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\n"
                 f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.split("content-length:")[1].split()[0])
    received = len(await reader.readexactly(length))
    say(method="POST", path=url.path, status=int(head.split()[1]), sent=len(body), received=received,
        ns=time.monotonic_ns() - start)
    writer.close()


async def exchange_all(urls):
    await asyncio.gather(*(exchange(number, url) for number, url in enumerate(urls)))


def fetch_async(*urls):
    asyncio.run(exchange_all(urls))


globals()[sys.argv[1]](*sys.argv[2:])

"""Servers that ask another server before they answer: GET /relay/7?port=80 asks for /next/7 there.

relay.py threads    a thread for each connection
relay.py single     one thread, one connection after the other
relay.py asyncio    an event loop, which serves several at a time
Each prints its port, and serves until it is killed.
"""

import asyncio
import http.client
import http.server
import json
import sys
import urllib.parse


def target(path):
    url = urllib.parse.urlsplit(path)
    query = dict(urllib.parse.parse_qsl(url.query))
    return int(query["port"]), url.path.replace("/relay/", "/next/") + "?ms=" + query.get("ms", "0")


def say_port(port):
    print(json.dumps({"port": port}), flush=True)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        port, path = target(self.path)
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", path)
        status = connection.getresponse()
        status.read()
        connection.close()
        self.send_response(status.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


async def relay(reader, writer):
    while line := await reader.readline():
        path = line.split()[1].decode()
        while await reader.readline() != b"\r\n":
            pass
        port, path = target(path)
        their_reader, their_writer = await asyncio.open_connection("127.0.0.1", port)
        their_writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        await their_reader.read()
        their_writer.close()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    writer.close()


async def loop():
    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    say_port(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def serve(kind):
    server = kind(("127.0.0.1", 0), Handler)
    say_port(server.server_port)
    server.serve_forever()


match sys.argv[1]:
    case "threads":
        serve(http.server.ThreadingHTTPServer)
    case "single":
        serve(http.server.HTTPServer)
    case "asyncio":
        asyncio.run(loop())

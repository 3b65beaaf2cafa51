"""HTTP/1.1 by hand, with the system calls that its arguments name.

raw.py serve RECEIVE SEND [HOST]
    serves connections until it is killed: prints its port, and one record for each request
raw.py fetch SEND RECEIVE HOST PORT METHOD PATH REQUEST_BYTES RESPONSE_BYTES [HEADER...]
    makes one request and prints a record
raw.py pipeline HOST PORT COUNT PREFIX
    makes COUNT requests in one write and prints a record for each
raw.py echo
    serves connections that carry anything
"""

import json
import mmap
import os
import select
import socket
import sys
import threading
import time

SIZE = 65536


def receive_plain(connection):
    return connection.recv(SIZE)


def receive_bytes(connection):
    return connection.recv(1)


def receive_peek(connection):
    connection.recv(16, socket.MSG_PEEK)
    return connection.recv(SIZE)


def buffers():
    return [bytearray(3), bytearray(0), bytearray(2), bytearray(100), bytearray(SIZE)]


def receive_late(connection):
    """Reads when all has come, the end of the stream with the last bytes."""
    time.sleep(0.1)
    return connection.recv(SIZE)


def receive_spliced(connection):
    """Moves the bytes to a pipe, and reads them there."""
    reader, writer = os.pipe()
    count = os.splice(connection.fileno(), writer, SIZE)
    data = os.read(reader, count) if count else b""
    os.close(reader)
    os.close(writer)
    return data


def receive_recvmsg(connection):
    parts = buffers()
    count = connection.recvmsg_into(parts)[0]
    return b"".join(parts)[:count]


def receive_readv(connection):
    parts = buffers()
    count = os.readv(connection.fileno(), parts)
    return b"".join(parts)[:count]


def receive_nonblocking(connection):
    connection.setblocking(False)
    while True:
        select.select([connection], [], [])
        try:
            return connection.recv(SIZE)
        except BlockingIOError:
            pass


def send_plain(connection, head, body):
    connection.sendall(head + body)


def send_apart(connection, head, body):
    connection.sendall(head)
    connection.sendall(body)


def send_pieces(connection, head, body):
    """The head in twenty writes or more, the first of one byte."""
    connection.sendall(head[:1])
    step = max(1, len(head) // 19)
    for start in range(1, len(head), step):
        time.sleep(0.0005)
        connection.sendall(head[start : start + step])
    connection.sendall(body)


def segments(data):
    return [data[:2], b"", data[2:5], data[5:6], data[6:40], data[40:]]


def drain(move, data):
    while data:
        data = data[move(segments(data)) :]


def send_sendmsg(connection, head, body):
    drain(connection.sendmsg, head + body)


def send_writev(connection, head, body):
    drain(lambda parts: os.writev(connection.fileno(), parts), head + body)


def send_more(connection, head, body):
    connection.sendall(head, socket.MSG_MORE)
    connection.sendall(body)


def send_nonblocking(connection, head, body):
    connection.setblocking(False)
    rest = memoryview(head + body)
    while rest:
        select.select([], [connection], [])
        try:
            rest = rest[connection.send(rest) :]
        except BlockingIOError:
            pass


def send_sendfile(connection, head, body):
    connection.sendall(head)
    with open(os.memfd_create("body"), "w+b") as file:
        file.write(body)
        file.flush()
        offset = 0
        while offset < len(body):
            offset += os.sendfile(connection.fileno(), file.fileno(), offset, len(body) - offset)


def send_mapped(connection, head, body):
    """From pages of a file that nobody has touched."""
    with open(os.memfd_create("message"), "w+b") as file:
        file.write(head + body)
        file.flush()
        with mmap.mmap(file.fileno(), len(head + body)) as pages:
            connection.sendall(pages)


def chunks(body):
    """A chunked body, each part of which goes out by itself, down to the last one of five bytes."""
    for start in range(0, len(body), 30000):
        part = body[start : start + 30000]
        yield b"%x\r\n" % len(part)
        yield part
        yield b"\r\n"
    yield b"0\r\n\r\n"


def send_chunks(connection, head, body):
    connection.sendall(head)
    for part in chunks(body):
        connection.sendall(part)


def send_chunksv(connection, head, body):
    """A chunked body whose last bytes are in several segments."""
    parts = [head, *chunks(body)]
    while parts:
        moved = connection.sendmsg(parts)
        while parts and moved >= len(parts[0]):
            moved -= len(parts.pop(0))
        if moved:
            parts[0] = parts[0][moved:]


def call(prefix, name):
    return globals()[prefix + "_" + name]


def framing(send, size):
    return b"Transfer-Encoding: chunked" if send.startswith("chunks") else b"Content-Length: %d" % size


class Reader:
    """The messages that come from a connection."""

    def __init__(self, connection, receive):
        self.connection, self.receive, self.data = connection, receive, b""

    def more(self):
        part = self.receive(self.connection)
        self.data += part
        return bool(part)

    def cut(self, separator):
        while separator not in self.data:
            if not self.more():
                return None
        first, self.data = self.data.split(separator, 1)
        return first

    def take(self, size):
        parts, have = [self.data], len(self.data)
        while have < size:
            part = self.receive(self.connection)
            if not part:
                break
            parts.append(part)
            have += len(part)
        data = b"".join(parts)
        self.data = data[size:]
        return len(data[:size])

    def message(self):
        head = self.cut(b"\r\n\r\n")
        if head is None:
            return None
        first, *lines = head.decode().split("\r\n")
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if fields.get("transfer-encoding") != "chunked":
            return first, fields, self.take(int(fields.get("content-length", 0)))
        total = 0
        while True:
            size = int(self.cut(b"\r\n"), 16)
            total += self.take(size)
            self.cut(b"\r\n")
            if size == 0:
                return first, fields, total


lock = threading.Lock()


def say(**record):
    with lock:
        print(json.dumps(record), flush=True)


def answer(connection, receive, send):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    reader = Reader(connection, call("receive", receive))
    while True:
        message = reader.message()
        if message is None:
            return connection.close()
        line, fields, received = message
        method, path, _ = line.split(" ")
        size = int(fields.get("x-response-bytes", 0))
        connection.setblocking(True)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n" + framing(send, size) + b"\r\n\r\n"
        call("send", send)(connection, head, b"y" * size)
        connection.setblocking(True)
        say(method=method, path=path.split("?")[0], status=200, received=received, sent=size)


def listen(host):
    listener = socket.create_server(
        (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=64
    )
    say(port=listener.getsockname()[1])
    while True:
        yield listener.accept()[0]


def serve(receive, send, host="127.0.0.1"):
    for connection in listen(host):
        threading.Thread(target=answer, args=(connection, receive, send), daemon=True).start()


def fetch(send, receive, host, port, method, path, size, response, *headers):
    connection = socket.create_connection((host, int(port)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}:{port}", f"X-Response-Bytes: {response}", *headers]
    head = "\r\n".join(lines).encode() + b"\r\n" + framing(send, int(size)) + b"\r\n\r\n"
    call("send", send)(connection, head, b"x" * int(size))
    connection.setblocking(True)
    line, _, received = Reader(connection, call("receive", receive)).message()
    connection.close()
    say(path=path, status=int(line.split(" ")[1]), sent=int(size), received=received)


def pipeline(host, port, count, prefix):
    connection = socket.create_connection((host, int(port)))
    paths = [f"{prefix}/{number}" for number in range(int(count))]
    requests = [f"GET {path}?size={number} HTTP/1.1\r\nHost: a\r\n\r\n" for number, path in enumerate(paths)]
    connection.sendall("".join(requests).encode())
    reader = Reader(connection, receive_plain)
    for path in paths:
        line, _, received = reader.message()
        say(path=path, status=int(line.split(" ")[1]), received=received)
    connection.close()


def echo():
    for connection in listen("127.0.0.1"):
        while data := connection.recv(SIZE):
            connection.sendall(data)


def talk(port, *texts):
    """Sends what is no HTTP to an echo, and waits for its return each time."""
    connection = socket.create_connection(("127.0.0.1", int(port)))
    for text in texts:
        connection.sendall(text.encode())
        back = b""
        while len(back) < len(text):
            back += connection.recv(SIZE)
    say(echoed=len(texts))
    sys.stdin.read()


def stand(port):
    """Makes one request for each line of its input, all on one connection."""
    connection = socket.create_connection(("127.0.0.1", int(port)))
    reader = Reader(connection, receive_plain)
    for line in sys.stdin:
        connection.sendall(f"GET {line.strip()} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        reader.message()
        say(path=line.strip())


def leave(port, path):
    """Makes a request and closes the connection before the response comes."""
    connection = socket.create_connection(("127.0.0.1", int(port)))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    time.sleep(0.05)
    connection.close()
    say(left=True)


def finish(port, *paths):
    """Makes requests on one connection, and ends the stream with the last, before its response comes."""
    connection = socket.create_connection(("127.0.0.1", int(port)))
    reader = Reader(connection, receive_late)
    for path in paths:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nX-Response-Bytes: 5\r\n\r\n".encode())
        if path == paths[-1]:
            connection.shutdown(socket.SHUT_WR)
        line, _, received = reader.message()
        say(path=path, status=int(line.split(" ")[1]), received=received)
    connection.close()


globals()[sys.argv[1]](*sys.argv[2:])

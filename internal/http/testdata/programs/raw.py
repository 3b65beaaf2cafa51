"""HTTP/1.1 by hand, with the system calls that its arguments name.

raw.py serve RECEIVE SEND [HOST]
    serves connections until it is killed: prints its port, and one record for each request
raw.py fetch SEND RECEIVE HOST PORT METHOD PATH REQUEST_BYTES RESPONSE_BYTES [HEADER...]
    makes one request and prints a record
raw.py pipeline HOST PORT COUNT PREFIX...
    makes COUNT requests in one write and prints a record for each; on a new connection for each PREFIX, after a line of input
raw.py hasty
    serves a connection: answers each request with its head, waits, and then reads the rest with what came after it
raw.py early PORT WRITES PREFIX COUNT
    makes COUNT requests with chunked bodies, most of each after its response, and with it, in so many writes, the next head
raw.py relay PORT
    is a proxy before a server's port: reads heads, moves bodies by splice, and prints records as raw.py serve
raw.py echo
    serves connections that carry anything
"""

import ctypes
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


class Segment(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Header(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("segments", ctypes.POINTER(Segment)),
        ("count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_long),
        ("length", ctypes.c_uint32),  # of struct mmsghdr
    ]


library = ctypes.CDLL(None, use_errno=True)


def headers(parts):
    """A vector of messages, each in a buffer of its own, which may be bytes to be sent."""
    vector = (Header * len(parts))()
    vector.segments = []  # keeps them
    for header, part in zip(vector, parts):
        segment = Segment(ctypes.cast(ctypes.c_char_p(part) if isinstance(part, bytes) else part, ctypes.c_void_p), len(part))
        vector.segments.append(segment)
        header.segments, header.count = ctypes.pointer(segment), 1
    return vector


def failed():
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def receive_recvmmsg(connection):
    """In up to three messages, as far as there is something."""
    parts = [ctypes.create_string_buffer(size) for size in (20, 50, SIZE)]
    vector = headers(parts)
    count = library.recvmmsg(connection.fileno(), vector, len(parts), 0x10000, None)  # MSG_WAITFORONE
    if count < 0:
        failed()
    return b"".join(part.raw[: header.length] for part, header in zip(parts[:count], vector))


def receive_preadv2(connection):
    parts = buffers()
    vector = (Segment * len(parts))()
    for segment, part in zip(vector, parts):
        if part:
            segment.base = ctypes.addressof((ctypes.c_char * len(part)).from_buffer(part))
        segment.length = len(part)
    count = library.preadv2(connection.fileno(), vector, len(parts), ctypes.c_long(-1), 0)
    if count < 0:
        failed()
    return b"".join(parts)[:count]


def receive_segments(connection):
    """In many segments, which are small."""
    parts = [bytearray(7) for _ in range(1000)]
    count = os.readv(connection.fileno(), parts)
    return b"".join(parts)[:count]


def receive_truncated(connection):
    return connection.recv(1)


def body_truncated(connection, wanted):
    """Throws the body away."""
    return bytes(len(connection.recv(min(wanted, SIZE), socket.MSG_TRUNC)))


receive_waitall = receive_truncated


def body_waitall(connection, wanted):
    return connection.recv(wanted, socket.MSG_WAITALL)


receive_bodyspliced = receive_truncated


def body_bodyspliced(connection, wanted):
    return receive_spliced(connection)


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


def send_lines(connection, head, body):
    """With two segments for each line of the head."""
    parts = []
    for line in head.splitlines():
        parts += [line, b"\r\n"]
    sent = connection.sendmsg([*parts, body])
    connection.sendall((head + body)[sent:])


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


def send_file(connection, head, body):
    """The head too."""
    with open(os.memfd_create("message"), "w+b") as file:
        file.write(head + body)
        file.flush()
        os.sendfile(connection.fileno(), file.fileno(), 0, len(head + body))


def through_pipe(connection, data, fill):
    reader, writer = os.pipe()
    while data:
        filled = fill(writer, data[:SIZE])
        data = data[filled:]
        while filled:
            filled -= os.splice(reader, connection.fileno(), filled)
    os.close(reader)
    os.close(writer)


def send_spliced(connection, head, body):
    connection.sendall(head)
    through_pipe(connection, body, os.write)


def vmsplice(pipe, data):
    count = library.vmsplice(pipe, ctypes.byref(Segment(ctypes.cast(data, ctypes.c_void_p), len(data))), 1, 0)
    return count if count >= 0 else failed()


def send_vmspliced(connection, head, body):
    connection.sendall(head)
    through_pipe(connection, body, vmsplice)


def send_zerocopy(connection, head, body):
    connection.setsockopt(socket.SOL_SOCKET, 60, 1)  # SO_ZEROCOPY
    rest = memoryview(head + body)
    while rest:
        rest = rest[connection.send(rest, 0x4000000) :]  # MSG_ZEROCOPY


def send_sendmmsg(connection, head, body):
    data = head + body
    parts = [data[:20], data[20 : len(head) + 5], data[len(head) + 5 :]]
    parts = [part for part in parts if part]
    vector = headers(parts)
    count = library.sendmmsg(connection.fileno(), vector, len(parts), 0)
    if count < 0:
        failed()
    connection.sendall(data[sum(header.length for header in vector[:count]) :])


def send_pwritev2(connection, head, body):
    def move(parts):
        vector = (Segment * len(parts))()
        for segment, part in zip(vector, parts):
            segment.base, segment.length = ctypes.cast(part, ctypes.c_void_p), len(part)
        count = library.pwritev2(connection.fileno(), vector, len(parts), ctypes.c_long(-1), 0)
        return count if count >= 0 else failed()

    drain(move, head + body)


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

    def __init__(self, connection, receive, body=None):
        self.connection, self.receive, self.data = connection, receive, b""
        self.body = body or (lambda connection, wanted: receive(connection))

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
            part = self.body(self.connection, size - have)
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
    reader = Reader(connection, call("receive", receive), globals().get("body_" + receive))
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
    reader = Reader(connection, call("receive", receive), globals().get("body_" + receive))
    line, _, received = reader.message()
    connection.close()
    say(path=path, status=int(line.split(" ")[1]), sent=int(size), received=received)


def pipeline(host, port, count, *prefixes):
    for prefix in prefixes:
        if prefix != prefixes[0]:
            sys.stdin.readline()
        connection = socket.create_connection((host, int(port)))
        paths = [f"{prefix}/{number}" for number in range(int(count))]
        requests = [f"GET {path}?size={number} HTTP/1.1\r\nHost: a\r\n\r\n" for number, path in enumerate(paths)]
        connection.sendall("".join(requests).encode())
        reader = Reader(connection, receive_plain)
        for path in paths:
            line, _, received = reader.message()
            say(path=path, status=int(line.split(" ")[1]), received=received)
        connection.close()


def hasty():
    for connection in listen("127.0.0.1"):
        data = b""
        while True:
            while b"\r\n\r\n" not in data:
                part = connection.recv(4096)
                if not part:
                    connection.close()
                    break
                data += part
            else:
                head, data = data.split(b"\r\n\r\n", 1)
                method, path, _ = head.decode().split("\r\n")[0].split(" ")
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                time.sleep(0.02)
                if b"chunked" in head:
                    while b"\r\n0\r\n\r\n" not in data:
                        data += connection.recv(4096)
                    data = data.split(b"\r\n0\r\n\r\n", 1)[1]
                say(method=method, path=path, status=200, received=-1, sent=2)
                continue
            break


def early(port, writes, prefix, count):
    connection = socket.create_connection(("127.0.0.1", int(port)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    reader = Reader(connection, receive_plain)
    paths = [f"{prefix}/{number}" for number in range(int(count))]
    rest = []
    for path in paths:
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n".encode()
        rest.append(head + b"x" * 100)
        for data in rest if writes == "2" else [b"".join(rest)]:
            connection.sendall(data)
        rest = [b"x" * 900 + b"\r\n0\r\n\r\n"]
        line, _, received = reader.message()
        say(path=path, status=int(line.split(" ")[1]), received=received, sent=1000)
    connection.sendall(rest[0])
    connection.close()


def pass_message(source, target, pipe):
    """Reads a head, and moves the body without reading it. Gives the first line, and how long the body is."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        part = source.recv(1)
        if not part:
            return None, 0
        head += part
    target.sendall(head)
    lines = head.decode().split("\r\n")
    size = sum(int(line[15:]) for line in lines if line.lower().startswith("content-length:"))
    left = size
    while left:
        moved = os.splice(source.fileno(), pipe[1], left)
        left -= moved
        while moved:
            moved -= os.splice(pipe[0], target.fileno(), moved)
    return lines[0], size


def pass_messages(client, port):
    server = socket.create_connection(("127.0.0.1", int(port)))
    pipe = os.pipe()
    while True:
        line, received = pass_message(client, server, pipe)
        if line is None:
            return
        start = time.monotonic_ns()
        method, path, _ = line.split(" ")
        line, sent = pass_message(server, client, pipe)
        say(method=method, path=path.split("?")[0], status=int(line.split(" ")[1]), received=received, sent=sent,
            ns=time.monotonic_ns() - start)


def relay(port):
    for connection in listen("127.0.0.1"):
        threading.Thread(target=pass_messages, args=(connection, port), daemon=True).start()


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

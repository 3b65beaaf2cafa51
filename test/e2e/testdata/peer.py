"""The Python program that the end-to-end tests observe; ../peer is the same in Go.

    peer.py serve HOST PORT [WORKERS]   answers every byte with two; WORKERS processes accept, or this one
    peer.py connect HOST PORT           sends as many bytes as each line of its input says, over one connection
    peer.py each HOST PORT              the same, a connection for each line
    peer.py fail HOST PORT              tries to connect and prints the error

Port 0 chooses one. On its output are JSON lines: where it listens, and what each connection carried by its own count.
"""
import ctypes
import errno
import json
import os
import signal
import socket
import sys
import threading

PIECE = 8192


def report(event, connection=None, **more):
    line = {"event": event, "pid": os.getpid()} | more
    if connection:
        line["local_port"] = connection.getsockname()[1]
        try:
            line["peer_port"] = connection.getpeername()[1]
        except OSError:
            pass
    # One write: several workers share the output.
    os.write(1, (json.dumps(line) + "\n").encode())


def open_socket(host):
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)


def serve(host, port, workers):
    listener = open_socket(host)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if host == "::":
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind((host, port))
    listener.listen(256)
    report("listening", local_port=listener.getsockname()[1])
    for _ in range(workers):
        if os.fork() == 0:
            end_with_parent()
            accept(listener)
    if workers:
        while True:
            os.wait()
    accept(listener)


def end_with_parent():
    PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def accept(listener):
    while True:
        connection, peer = listener.accept()
        threading.Thread(target=answer, args=(connection, peer[1]), daemon=True).start()


def answer(connection, peer_port):
    sent = received = 0
    while piece := connection.recv(2 * PIECE):
        received += len(piece)
        connection.sendall(piece + piece)
        sent += 2 * len(piece)
    connection.close()
    report("closed", peer_port=peer_port, sent=sent, received=received)


class Connection:
    def __init__(self, host, port):
        self.socket = open_socket(host)
        self.socket.connect((host, port))
        self.sent = self.received = 0

    def exchange(self, size):
        while size:
            piece = min(size, PIECE)
            self.socket.sendall(b"x" * piece)
            self.sent += piece
            left = 2 * piece
            while left:
                answered = len(self.socket.recv(left))
                if not answered:
                    raise EOFError("the server closed early")
                left -= answered
                self.received += answered
            size -= piece

    def close(self):
        local_port, peer_port = self.socket.getsockname()[1], self.socket.getpeername()[1]
        self.socket.close()
        report("closed", local_port=local_port, peer_port=peer_port, sent=self.sent, received=self.received)


def connect(host, port):
    connection = Connection(host, port)
    report("connected", connection.socket)
    for line in iter(sys.stdin.readline, ""):
        connection.exchange(int(line))
        report("answered", connection.socket)
    connection.close()


def each(host, port):
    for line in iter(sys.stdin.readline, ""):
        connection = Connection(host, port)
        connection.exchange(int(line))
        connection.close()


def fail(host, port):
    code = open_socket(host).connect_ex((host, port))
    report("failed", error=errno.errorcode.get(code, ""))


def main():
    host, port = sys.argv[2], int(sys.argv[3])
    if sys.argv[1] == "serve":
        serve(host, port, int(sys.argv[4]) if len(sys.argv) > 4 else 0)
    else:
        {"connect": connect, "each": each, "fail": fail}[sys.argv[1]](host, port)


main()

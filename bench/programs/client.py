"""Makes the requests of which its input tells, and prints what came of them, a line of JSON for each."""

import http.client
import json
import sys
import threading
import time

THREADS = 4
PAUSE = 0.005  # after a request, in seconds: so that durations are not those of waiting for a processor
CHUNK = 10_000


def pieces(size):
    while size > 0:
        yield bytes(min(size, CHUNK))
        size -= CHUNK


def ask(connection, plan):
    headers = {"Bench": plan["Bench"]}
    body = None
    if plan["Chunked"]:
        headers["Transfer-Encoding"] = "chunked"
        body = pieces(plan["Size"])
    elif plan["Method"] in ("POST", "PUT", "PATCH"):
        body = bytes(plan["Size"])
    if connection.sock is None:
        connection.connect()
    started = time.monotonic_ns()
    connection.request(plan["Method"], plan["Path"], body, headers, encode_chunked=plan["Chunked"])
    response = connection.getresponse()
    received = len(response.read())
    took = time.monotonic_ns() - started
    return {
        "Method": plan["Method"], "Path": plan["Path"], "Port": plan["Port"],
        "Status": response.status, "Version": "1.1" if response.version == 11 else "1.0",
        "SentBytes": plan["Size"], "ReceivedBytes": received,
        "ChunkedRequest": plan["Chunked"], "ChunkedResponse": bool(response.chunked), "Ns": took,
    }


def work(plans):
    connections = {}  # by port, kept
    for plan in plans:
        port = plan["Port"]
        if port not in connections:
            connections[port] = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        print(json.dumps(ask(connections[port], plan)) + "\n", end="")  # in one piece
        time.sleep(PAUSE)


plans = json.load(sys.stdin)
threads = [threading.Thread(target=work, args=(plans[i::THREADS],)) for i in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()

# Computes in a few functions, and says how often it has and what processor time it has used.
import hashlib
import json
import time


def inner(rounds):
    total = 0
    for i in range(rounds):
        total += i * i % 7
    return total


def outer(depth):
    return outer(depth - 1) if depth else inner(5000)


units, told = 0, 0
while True:
    outer(10)
    json.dumps(list(range(200)))
    hashlib.sha256(b"x" * 20000).digest()
    units += 1
    if time.monotonic() - told >= 0.05:
        told = time.monotonic()
        print(units, time.process_time_ns(), flush=True)

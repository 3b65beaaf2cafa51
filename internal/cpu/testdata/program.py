"""Works in functions of Python, for ever."""
import sys


def spin():
    total = 0
    for number in range(100_000):
        total += number * number
    return total


def recurse(depth):
    if depth > 1:
        return recurse(depth - 1)
    while True:
        spin()


print("ready", flush=True)
recurse(int(sys.argv[1]))

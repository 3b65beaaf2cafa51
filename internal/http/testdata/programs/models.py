"""A server that answers as model servers do, and a client of it.

models.py serve
    serves until it is killed: prints its port, and for each request one record with the attributes that a span of it has
models.py ask BASE TARGET...
    makes one request after the other on one connection, reads the answers, and ends

The query of a target says how the answer is to be: stream=1 in parts, usage=0 without what it took, words=N how long it is,
once=1 in one call with the head; and the request: prompt=N words long, secret=WORD of which, model=last at its end. pad=1
gives both heads a field that is longer than what is copied of a head. It is HTTPS where EBPFRECEIVER_TEST_CERTIFICATE is a
file with a certificate and its key.
"""

import http.client
import http.server
import json
import os
import re
import ssl
import sys
import time
import urllib.parse

ASKED, ANSWERED = "small-model", "small-model-2026"
PROMPT, ANSWER = "secretprompt", "secretanswer"
OPERATIONS = {"/v1/chat/completions": "chat", "/v1/completions": "text_completion", "/v1/embeddings": "embeddings",
              "/api/chat": "chat", "/api/generate": "text_completion"}


def say(**record):
    print(json.dumps(record), flush=True)


def options(target):
    url = urllib.parse.urlsplit(target)
    query = dict(urllib.parse.parse_qsl(url.query))
    # What proxies and Azure have before the paths of OpenAI.
    path = re.sub("^/openai/deployments/[^/]+/", "/v1/", url.path)
    path = re.sub("^/(openai|api)/v1/", "/v1/", path)
    return path, query, int(query.get("words", 3))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        path, query, words = options(self.path)
        stream, usage = asked.get("stream", path.startswith("/api/")), query.get("usage") != "0"
        prompt = asked.get("prompt") or asked.get("input") or asked["messages"][0]["content"]
        took = len(prompt.split()), words
        identity = "answer-%d" % time.monotonic_ns()
        says = {"gen_ai.operation.name": OPERATIONS.get(path), "gen_ai.response.model": ANSWERED}
        if "small-model" in json.dumps(asked)[:2000]:
            says["gen_ai.request.model"] = ASKED
        if stream:
            says["gen_ai.request.stream"] = True
        if usage:
            says["gen_ai.usage.input_tokens"] = took[0]
            if path != "/v1/embeddings":
                says["gen_ai.usage.output_tokens"] = took[1]
        if path.startswith("/api/"):
            parts = self.ollama(path, usage, took)
            says["gen_ai.response.finish_reasons"] = ["stop"]
            if not stream:
                last = json.loads(parts[-1])
                last["response" if path == "/api/generate" else "message"] = ANSWER * words
                parts = [json.dumps(last).encode()]
        elif path == "/v1/embeddings":
            answer = {"object": "list", "data": [{"index": 0, "embedding": [0.0123456789] * words}], "model": ANSWERED}
            if usage:
                answer["usage"] = {"prompt_tokens": took[0], "total_tokens": took[0]}
            parts = [json.dumps(answer).encode()]
        else:
            says["gen_ai.response.id"] = identity
            says["gen_ai.response.finish_reasons"] = ["stop"]
            parts = self.events(identity, usage, took) if stream else [self.whole(identity, usage, took)]
        if not stream and len(parts[0]) > 4096 and not path.startswith("/api/"):
            says.pop("gen_ai.response.finish_reasons", None)  # it is in a list of which not all is looked at
        say(path=path, status=200, says=says)
        self.send_response(200)
        if "pad" in query:
            self.send_header("X-Pad", "p" * 1000)
        if not stream:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(parts[0])))
            if "once" in query:
                self._headers_buffer += [b"\r\n", parts[0]]
                self.flush_headers()
                return
            self.end_headers()
            self.wfile.write(parts[0])
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        time.sleep(0.02)
        for part in parts:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            if part is parts[0]:
                time.sleep(0.1)
        self.wfile.write(b"0\r\n\r\n")

    def whole(self, identity, usage, took):
        answer = {"id": identity, "object": "chat.completion", "model": ANSWERED, "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": (ANSWER + " ") * took[1]}}]}
        if usage:
            answer["usage"] = {"prompt_tokens": took[0], "completion_tokens": took[1]}
        return json.dumps(answer).encode()

    def events(self, identity, usage, took):
        def event(reason=None, **more):
            choices = [] if "usage" in more else [{"index": 0, "finish_reason": reason, "delta": {"content": ANSWER}}]
            return b"data: %s\n\n" % json.dumps({"id": identity, "model": ANSWERED, "choices": choices, **more}).encode()

        parts = [event() for _ in range(took[1])] + [event("stop")]
        if usage:
            parts.append(event(usage={"prompt_tokens": took[0], "completion_tokens": took[1]}))
        return parts + [b"data: [DONE]\n\n"]

    def ollama(self, path, usage, took):
        def part(**more):
            text = {"response": ANSWER} if path == "/api/generate" else {"message": {"content": ANSWER}}
            return json.dumps({"model": ANSWERED, **text, **more}).encode() + b"\n"

        end = {"prompt_eval_count": took[0], "eval_count": took[1]} if usage else {}
        return [part(done=False) for _ in range(took[1])] + [part(done=True, done_reason="stop", **end)]

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


def ask(base, *targets):
    url = urllib.parse.urlsplit(base)
    if url.scheme == "https":
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection(url.netloc, context=context)
    else:
        connection = http.client.HTTPConnection(url.netloc)
    for target in targets:
        path, query, _ = options(target)
        prompt = " ".join([query.get("secret", PROMPT)] * int(query.get("prompt", 5)))
        content = {"/v1/embeddings": {"input": prompt}, "/v1/completions": {"prompt": prompt},
                   "/api/generate": {"prompt": prompt}}.get(path, {"messages": [{"role": "user", "content": prompt}]})
        stream = {"stream": query["stream"] == "1"} if "stream" in query else {}
        if query.get("model") == "last":
            body = {**content, "model": ASKED, **stream}
        else:
            body = {"model": ASKED, **stream, **content}
        pad = {"X-Pad": "p" * 1000} if "pad" in query else {}
        connection.request("POST", target, json.dumps(body), {"Content-Type": "application/json", **pad})
        response = connection.getresponse()
        answer = response.read()
        say(path=path, status=response.status, received=len(answer))
    connection.close()


if __name__ == "__main__":
    {"serve": serve, "ask": ask}[sys.argv[1]](*sys.argv[2:])

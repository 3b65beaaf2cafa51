// Answers as the header Bench of a request says: status, size, and whether the body is chunked.
//
// When its input ends, it prints what it has done, a line of JSON for each request, and ends.

import { createServer } from "node:http";

const chunk = Buffer.alloc(64 << 10);
const records = [];

async function send(response, size) {
  for (let left = size; left > 0; left -= chunk.length) {
    if (!response.write(chunk.subarray(0, left))) await new Promise((resolve) => response.once("drain", resolve));
  }
  response.end();
}

function answer(request, response) {
  const started = process.hrtime.bigint();
  let received = 0;
  request.on("data", (data) => (received += data.length));
  request.on("end", () => {
    const [status, size, asked] = request.headers.bench.split(" ");
    const bodiless = status === "204" || status === "304";
    const chunked = asked === "true" && !bodiless;
    const sent = bodiless || request.method === "HEAD" ? 0 : Number(size);
    response.writeHead(Number(status), chunked || bodiless ? {} : { "Content-Length": size });
    if (chunked) response.flushHeaders();
    response.on("finish", () =>
      records.push({
        Method: request.method, Path: request.url, Status: Number(status), Version: request.httpVersion,
        SentBytes: sent, ReceivedBytes: received,
        ChunkedRequest: request.headers["transfer-encoding"] === "chunked", ChunkedResponse: chunked,
        Ns: Number(process.hrtime.bigint() - started),
      }));
    send(response, sent);
  });
}

const server = createServer({ keepAliveTimeout: 600_000 }, answer);
server.listen(Number(process.argv[2]), "127.0.0.1");
process.stdin.on("end", () => {
  const lines = records.map((record) => JSON.stringify(record) + "\n");
  process.stdout.write(lines.join(""), () => process.exit());
});
process.stdin.resume();

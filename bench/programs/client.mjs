// Makes the requests of which its input tells, and prints what came of them, a line of JSON for each.

import { Agent, request } from "node:http";
import { readFileSync } from "node:fs";
import { setTimeout } from "node:timers/promises";

const atOnce = 8;
const pause = 5; // after a request, in ms: so that durations are not those of waiting for a processor
const chunk = Buffer.alloc(10_000);
const agent = new Agent({ keepAlive: true });

function ask(plan) {
  return new Promise((resolve, reject) => {
    const headers = { Bench: plan.Bench };
    if (plan.Chunked) headers["Transfer-Encoding"] = "chunked";
    else if (["POST", "PUT", "PATCH"].includes(plan.Method)) headers["Content-Length"] = plan.Size;
    let started;
    const start = () => (started = process.hrtime.bigint());
    const asked = request(
      { host: "127.0.0.1", port: plan.Port, path: plan.Path, method: plan.Method, headers, agent, timeout: 20_000 },
      (response) => {
        let received = 0;
        response.on("data", (data) => (received += data.length));
        response.on("error", reject);
        response.on("end", () =>
          resolve({
            Method: plan.Method, Path: plan.Path, Port: plan.Port,
            Status: response.statusCode, Version: response.httpVersion,
            SentBytes: plan.Size, ReceivedBytes: received,
            ChunkedRequest: plan.Chunked, ChunkedResponse: response.headers["transfer-encoding"] === "chunked",
            Ns: Number(process.hrtime.bigint() - started),
          }));
      });
    asked.on("socket", (socket) => (socket.connecting ? socket.once("connect", start) : start()));
    asked.on("timeout", () => asked.destroy(new Error("no answer in 20 s")));
    asked.on("error", reject);
    for (let left = plan.Size; left > 0; left -= chunk.length) asked.write(chunk.subarray(0, left));
    asked.end();
  });
}

const plans = JSON.parse(readFileSync(0));
const lines = [];
async function work() {
  for (let plan; (plan = plans.pop()); ) {
    try {
      lines.push(JSON.stringify(await ask(plan)) + "\n");
    } catch (error) {
      throw new Error(`ask for ${plan.Path} at ${plan.Port}`, { cause: error });
    }
    await setTimeout(pause);
  }
}
await Promise.all(Array.from({ length: atOnce }, work));
agent.destroy();
process.stdout.write(lines.join(""));

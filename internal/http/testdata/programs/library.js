// HTTP/1.1 by Node's own library: a server, and a client that makes requests to it, in one process each.
//
// library.js serve            serves until it is killed: prints its port, and one record for each request
// library.js fetch URL...     makes one request after the other on one connection, and prints a record for each
//
// It serves HTTPS where EBPFRECEIVER_TEST_CERTIFICATE is a file with a certificate and its key. Certificates of others are not
// verified.
const fs = require("node:fs");
const http = require("node:http");
const https = require("node:https");

const certificate = process.env.EBPFRECEIVER_TEST_CERTIFICATE;

const say = (record) => process.stdout.write(JSON.stringify(record) + "\n");

function serve() {
  const serveOne = (request, response) => {
    let received = 0;
    request.on("data", (part) => (received += part.length));
    request.on("end", () => {
      const url = new URL(request.url, "http://a");
      const size = Number(url.searchParams.get("size"));
      if (url.searchParams.has("chunked")) {
        response.write("y".repeat(size / 2)); // without a length, and in two parts: chunked
        response.end("y".repeat(size / 2));
      } else {
        response.setHeader("Content-Length", size);
        response.end("y".repeat(size));
      }
      say({ method: request.method, path: url.pathname, status: 200, received, sent: size });
    });
  };
  const pem = certificate && fs.readFileSync(certificate);
  const server = pem ? https.createServer({ cert: pem, key: pem }, serveOne) : http.createServer(serveOne);
  server.listen(0, "127.0.0.1", () => say({ port: server.address().port }));
}

async function fetchAll(addresses) {
  const library = addresses[0].startsWith("https:") ? https : http;
  const agent = new library.Agent({ keepAlive: true, maxSockets: 1, rejectUnauthorized: false });
  for (const [number, address] of addresses.entries()) {
    await new Promise((done, failed) => {
      const request = library.request(address, { method: "PUT", agent }, (response) => {
        let received = 0;
        response.on("data", (part) => (received += part.length));
        response.on("end", () => {
          const path = new URL(address).pathname;
          say({ method: "PUT", path, status: response.statusCode, sent: 2 * number, received });
          done();
        });
      });
      request.on("error", failed);
      request.write("x".repeat(number)); // in two parts: chunked
      request.end("x".repeat(number));
    });
  }
  agent.destroy();
}

process.argv[2] === "serve" ? serve() : fetchAll(process.argv.slice(3));

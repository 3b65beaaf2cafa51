// A server that asks another server before it answers: GET /relay/7?port=80 asks for /next/7 there. It prints its port, and
// serves until it is killed.
const http = require("node:http");

const agent = new http.Agent({ keepAlive: true });
const server = http.createServer((request, response) => {
  const url = new URL(request.url, "http://a");
  const path = url.pathname.replace("/relay/", "/next/") + "?ms=" + (url.searchParams.get("ms") ?? 0);
  http.get({ host: "127.0.0.1", port: url.searchParams.get("port"), path, agent }, (answer) => {
    answer.resume();
    answer.on("end", () => {
      response.setHeader("Content-Length", 0);
      response.end();
    });
  });
});
server.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: server.address().port })));

// What opening a model over HTTP costs: requests, bytes, and time behind a server that answers after a delay.
//   npm run build && node bench/http-load.mjs [DIRECTORY] [ROUNDS]
// Delays take turns; a row is the median of the rounds. (time - time without delay) / delay is how many answers are waited for
// one after the other.
import { createReadStream, existsSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { urlFiles } from "../dist/io/index.js";
import { openModel } from "../dist/pipeline/index.js";
import { loadTokenizer } from "../dist/text/index.js";
import { readOptions } from "../scripts/options.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const [directory = join(root, "models/tiny-6m"), rounds = "3"] = readOptions({ allowPositionals: true }).positionals;
const delaysMs = [0, 50, 100];

let delayMs = 0;
let requests = [];
const server = createServer(async (request, response) => {
  const path = join(directory, new URL(request.url, "http://x").pathname.slice(1));
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
  await sleep(delayMs);
  if (!existsSync(path)) {
    requests.push({ path, bytes: 0 });
    return response.writeHead(404).end();
  }
  const { size } = statSync(path);
  const start = range ? Number(range[1]) : 0;
  const end = range?.[2] ? Math.min(Number(range[2]), size - 1) : size - 1;
  if (start > end) return response.writeHead(416, { "content-range": `bytes */${size}` }).end();
  const headers = { "content-length": end - start + 1, "content-range": `bytes ${start}-${end}/${size}` };
  response.writeHead(range ? 206 : 200, headers);
  requests.push({ path, bytes: request.method === "HEAD" ? 0 : end - start + 1 });
  if (request.method === "HEAD") return response.end();
  createReadStream(path, { start, end }).pipe(response);
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const url = `http://127.0.0.1:${server.address().port}/`;

const times = new Map(delaysMs.map((delay) => [delay, []]));
for (let round = 0; round < Number(rounds); round++) {
  for (delayMs of delaysMs) {
    requests = [];
    const startMs = performance.now();
    const files = urlFiles(url);
    const [opened] = await Promise.all([openModel(files, { weights: "q8" }), loadTokenizer(files)]);
    times.get(delayMs).push(performance.now() - startMs);
    opened[Symbol.dispose]();
  }
}
server.close();
server.closeAllConnections();

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
const plainMs = median(times.get(0));
console.log(
  `${requests.length} requests, ${requests.filter(({ bytes }) => bytes === 0).length} of them without a body; ` +
    `${(requests.reduce((sum, { bytes }) => sum + bytes, 0) / 1e6).toFixed(1)} MB`,
);
console.table(
  delaysMs.map((delay) => {
    const ms = median(times.get(delay));
    const [least, most] = [Math.min(...times.get(delay)), Math.max(...times.get(delay))];
    const waits = delay === 0 ? "" : ((ms - plainMs) / delay).toFixed(1);
    return {
      "delay ms": delay,
      "open ms": Math.round(ms),
      "min to max": `${least.toFixed()} to ${most.toFixed()}`,
      waits,
    };
  }),
);

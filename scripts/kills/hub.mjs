// A server that behaves as the Hugging Face Hub does, with one model: org/name.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";

const commit = "0123456789abcdef0123456789abcdef01234567";

/** Serves the files of a directory. @returns its origin, and how to end it */
export async function serveHub(directory) {
  const names = readdirSync(directory).filter((name) => !name.startsWith("."));
  const server = createServer((request, response) => {
    const path = request.url ?? "";
    if (path.startsWith("/api/models/org/name/revision/")) {
      response.end(JSON.stringify({ sha: commit, siblings: names.map((rfilename) => ({ rfilename })) }));
      return;
    }
    const name = path.slice(path.lastIndexOf("/") + 1);
    if (!names.includes(name)) return void response.writeHead(404).end();
    const bytes = readFileSync(join(directory, name));
    const etag = `"${createHash("sha256").update(bytes).digest("hex")}"`;
    const first = Number(/^bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0);
    const headers = { etag, "content-length": String(bytes.length - first), "accept-ranges": "bytes" };
    if (first > 0) headers["content-range"] = `bytes ${first}-${bytes.length - 1}/${bytes.length}`;
    response.writeHead(first > 0 ? 206 : 200, headers);
    response.end(request.method === "HEAD" ? undefined : bytes.subarray(first));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { origin: `http://127.0.0.1:${server.address().port}`, close: () => server.close() };
}

// A server of one's own, with the models under a path of it and a page that asks them.
//   npm install rarefy hono @hono/node-server
//   node examples/server/mounted.mjs        then open http://127.0.0.1:3000
import { readFile } from "node:fs/promises";
import { serve } from "@hono/node-server";
import { Hono } from "hono";
import { resolveModel } from "rarefy/io/node";
import { createServer } from "rarefy/server";

const server = createServer({ models: [{ id: "tiny", files: () => resolveModel("tiny-6m") }] });
const app = new Hono();
app.route("/llm", server.app);
app.get("/", async (c) => c.html(await readFile(new URL("page.html", import.meta.url), "utf8")));

const node = serve({ fetch: app.fetch, hostname: "127.0.0.1", port: 3000 });
process.once("SIGTERM", async () => {
  node.close();
  await server.drain(30_000);
  await server[Symbol.asyncDispose]();
});

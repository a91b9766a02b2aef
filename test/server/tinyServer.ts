import { fileURLToPath } from "node:url";
import { directoryFiles } from "../../src/io/index.node.js";
import { createServer, type Server, type ServerOptions } from "../../src/server/index.js";

export const tinyDirectory = fileURLToPath(new URL("../../models/tiny-6m", import.meta.url));

// biome-ignore lint/suspicious/noExplicitAny: what tests look into, whatever it is
export type Json = Record<string, any>;

/** A server of the embedded model, one thread. */
export const tinyServer = (options: Partial<ServerOptions> = {}): Server =>
  createServer({ models: [{ id: "tiny", files: () => directoryFiles(tinyDirectory), threads: 1 }], ...options });

export const post = (
  server: Server,
  path: string,
  body: unknown,
  headers: Record<string, string> = {},
  signal?: AbortSignal,
) =>
  server.app.request(path, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: typeof body === "string" ? body : JSON.stringify(body),
    signal,
  });

/** The objects of an event stream, and how it ended. */
export async function eventsOf(response: Response): Promise<{ events: Json[]; done: boolean; names: string[] }> {
  const lines = (await response.text()).split("\n").filter((line) => line !== "");
  const data = lines.filter((line) => line.startsWith("data: ")).map((line) => line.slice("data: ".length));
  return {
    events: data.filter((text) => text !== "[DONE]").map((text) => JSON.parse(text)),
    done: data.at(-1) === "[DONE]",
    names: lines.filter((line) => line.startsWith("event: ")).map((line) => line.slice("event: ".length)),
  };
}

export const answerOf = async (response: Response): Promise<Json> => {
  const body = await response.json();
  if (response.status !== 200) throw new Error(JSON.stringify(body));
  return body;
};

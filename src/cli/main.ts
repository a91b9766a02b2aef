#!/usr/bin/env node
import { packageVersion } from "../jobs/internal.js";
import { runCli } from "./cli.js";
import { commands } from "./commands/index.js";

const controller = new AbortController();

// The first signal ends the work in good order, a second one ends the process.
const signalCodes = { SIGINT: 130, SIGTERM: 143 } as const;
let signalCode: number | undefined;
for (const [name, code] of Object.entries(signalCodes))
  process.on(name, () => {
    if (signalCode !== undefined) process.exit(code);
    signalCode = code;
    controller.abort();
  });

// A reader that has seen enough (`rarefy inspect … | head`) is no error.
let readerGone = false;
for (const stream of [process.stdout, process.stderr])
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
    readerGone = true;
    controller.abort();
  });

const code = await runCli(commands, process.argv.slice(2), {
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  signal: controller.signal,
  version: packageVersion(),
});
process.exitCode = readerGone ? 0 : code === 0 ? 0 : (signalCode ?? code);

// Bun and Deno have the web's Worker, of which the training engine opens a pool that nobody can close: they would wait for ever.
if ("Bun" in globalThis || "Deno" in globalThis) {
  const written = (stream: NodeJS.WriteStream) => new Promise<void>((resolve) => stream.write("", () => resolve()));
  await Promise.all([process.stdout, process.stderr].map(written));
  process.exit();
}

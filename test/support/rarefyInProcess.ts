import { dirname, join } from "node:path";
import { PassThrough, Writable } from "node:stream";
import { setTimeout as wait } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import type { runCli } from "../../src/cli/cli.js";
import type { commands } from "../../src/cli/commands/index.js";
import type { packageVersion } from "../../src/jobs/internal.js";
import type { Finished } from "./rarefy.js";

/** What main.ts of the command line puts together, from the files beside it. */
async function commandLine(main: string) {
  const load = (file: string) => import(/* @vite-ignore */ pathToFileURL(join(dirname(main), file)).href);
  const [cli, table, jobs] = await Promise.all(["cli.js", "commands/index.js", "../jobs/internal.js"].map(load));
  return {
    run: cli.runCli as typeof runCli,
    commands: table.commands as typeof commands,
    version: (jobs.packageVersion as typeof packageVersion)(),
  };
}

let loading: ReturnType<typeof commandLine> | undefined;
let last: Promise<unknown> = Promise.resolve();

/** Runs a command in this process, after those that were asked for before it: Node.js and the modules are started once. */
export function rarefyInProcess(main: string, args: readonly string[], input?: string): Promise<Finished> {
  const finished = last.then(() => run(main, args, input));
  last = finished.catch(() => {});
  return finished;
}

async function run(main: string, args: readonly string[], input: string | undefined): Promise<Finished> {
  loading ??= commandLine(main);
  const { run, commands, version } = await loading;
  const before = activeResources();
  const [stdout, stderr] = [collector(), collector()];
  const stdin = new PassThrough();
  stdin.end(input);
  const code = await run(commands, args, {
    stdin: stdin as unknown as NodeJS.ReadStream,
    stdout: stdout.stream,
    stderr: stderr.stream,
    signal: new AbortController().signal,
    version,
  });
  await untilNothingIsLeft(before);
  return { code, stdout: stdout.text(), stderr: stderr.text() };
}

/** A stream that is no terminal, and what was written to it. */
function collector() {
  let text = "";
  const stream = new Writable({
    decodeStrings: false,
    write(chunk: string, _encoding, written) {
      text += chunk;
      written();
    },
  });
  return { stream: stream as unknown as NodeJS.WriteStream, text: () => text };
}

/** How many there are of each kind of what keeps this process from ending. */
function activeResources(): Map<string, number> {
  const counts = new Map<string, number>();
  for (const kind of process.getActiveResourcesInfo()) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  return counts;
}

/** A process of its own would end only now: a command that leaves a thread or a timer behind ends never, here as there. */
async function untilNothingIsLeft(before: ReadonlyMap<string, number>): Promise<void> {
  const left = () => [...activeResources()].some(([kind, count]) => count > (before.get(kind) ?? 0));
  await wait(0);
  while (left()) await wait(5);
}

import { execFileSync, spawn } from "node:child_process";
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import { installPacked } from "./installPacked.mjs";
import { rarefyInProcess } from "./rarefyInProcess.js";

export const root = fileURLToPath(new URL("../../", import.meta.url));

const main = join(root, "dist/cli/main.js");

/** The empty folder in which the packed package is installed; the command line runs from there, not from dist/. */
export const installed = process.env.RAREFY_TEST_PACKED!;
/** The file that `npx rarefy` would run. */
export const command = join(installed, "node_modules/rarefy/dist/cli/main.js");
/** Node.js that runs it: this one, or the one named. */
export const node = process.env.RAREFY_TEST_NODE ?? process.execPath;

/** Packs and installs the package, built when stale: tests of the command line see today's code as users get it. */
export function ensureInstalled(): void {
  ensureBuilt();
  installPacked(installed);
}

/** Builds dist/ when it is missing or older than a source. */
export function ensureBuilt(): void {
  const newest = Math.max(
    ...readdirSync(join(root, "src"), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && entry.name.endsWith(".ts") && !entry.name.endsWith(".test.ts"))
      .map((entry) => statSync(join(entry.parentPath, entry.name)).mtimeMs),
  );
  if (existsSync(main) && statSync(main).mtimeMs >= newest) return;
  execFileSync("npm", ["run", "--silent", "build"], { cwd: root, stdio: "inherit" });
}

export interface Finished {
  code: number | null;
  stdout: string;
  stderr: string;
}

export interface RunOptions {
  /** Written to stdin, which then ends. */
  input?: string;
  /** Sent once stderr, with progress as JSON lines, matches `when`. */
  interrupt?: { signal: NodeJS.Signals; when: RegExp };
}

const spawned = new Set<string>();

/**
 * Runs the built command line: every command of a test file in a child process the first time and whenever it is interrupted,
 * and after that in this process, since starting Node.js and loading the modules takes longer than most commands that are tested.
 */
export function rarefy(args: readonly string[], options: RunOptions = {}): Promise<Finished> {
  const name = args[0] ?? "";
  if (spawned.has(name) && options.interrupt === undefined && node === process.execPath) {
    return rarefyInProcess(command, args, options.input);
  }
  spawned.add(name);
  return rarefyProcess(args, options);
}

/** Runs the built command line in a child process. */
export function rarefyProcess(args: readonly string[], { input, interrupt }: RunOptions = {}): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const child = spawn(node, [command, ...args, ...(interrupt === undefined ? [] : ["--json"])], { cwd: root });
    let stdout = "";
    let stderr = "";
    let sent = false;
    child.stdout.setEncoding("utf8").on("data", (text) => {
      stdout += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text) => {
      stderr += text;
      if (interrupt === undefined || sent || !interrupt.when.test(stderr)) return;
      sent = true;
      child.kill(interrupt.signal);
    });
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, stdout, stderr }));
    child.stdin.end(input);
  });
}

/** The JSON document of a command that must succeed. */
export async function rarefyJson(args: readonly string[], run = rarefy) {
  const { code, stdout, stderr } = await run([...args, "--json", "--quiet"]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  return JSON.parse(stdout);
}

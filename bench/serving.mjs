// Servers as processes of their own, and what the system tells of them.

import { spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** Starts a command that prints its address once it answers. @returns { url, pid, stop } */
export async function startServer(command, args) {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"] });
  const exited = new Promise((resolve) => child.once("exit", resolve));
  process.once("exit", () => child.kill("SIGKILL"));
  const stop = () => {
    child.kill("SIGTERM");
    return exited;
  };
  for await (const line of createInterface({ input: child.stdout })) {
    const url = /http:\S+/.exec(line)?.[0];
    if (url !== undefined) return { url, pid: child.pid, stop };
  }
  throw new Error(`the server did not start (${await exited})`);
}

/** `rarefy serve` on a free port; requests need not name the model. */
export function startRarefy(model, threads, extra = []) {
  const main = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));
  const args = [main, "serve", `model=${model}`, "--port", "0", "--threads", String(threads), "--quiet", ...extra];
  return startServer(process.execPath, args);
}

/** Memory, descriptors and processor time of a process, where the system tells (Linux). */
export function holds(pid) {
  try {
    const rss = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
    const times = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ");
    // User and system, in hundredths of a second.
    const cpuSeconds = (Number(times[11]) + Number(times[12])) / 100;
    const descriptors = readdirSync(`/proc/${pid}/fd`).length;
    return { residentMiB: Math.round(Number(rss) / 1024), descriptors, cpuSeconds };
  } catch {
    return {};
  }
}

export const post = (url, path, body, signal) =>
  fetch(`${url}${path}`, { method: "POST", headers: { "content-type": "application/json" }, body, signal });

import { createHash } from "node:crypto";
import { readFileSync, readlinkSync } from "node:fs";
import { hostname } from "node:os";

/** What a process that left something behind is doing now; "elsewhere": on another machine, or in another container. */
export type Liveness = "alive" | "dead" | "elsewhere";

let own: string | undefined;

/**
 * `place-pid-start`, which no other process has: names of files that a process makes carry it, so that a later one can tell
 * whether their maker still runs. The start is that of Linux, in ticks since the machine began; 0 elsewhere.
 */
export function processTag(): string {
  own ??= `${place()}-${process.pid}-${startOf(process.pid) ?? 0}`;
  return own;
}

/** What `processTag` gives. */
export const tagPattern = "[0-9a-f]{6}-\\d+-\\d+";

/** Whether the process of a tag still runs. Its number alone would not do: numbers are given out again. */
export function livenessOf(tag: string): Liveness {
  const [where, pid, start] = tag.split("-");
  if (where !== processTag().split("-")[0]) return "elsewhere";
  try {
    process.kill(Number(pid), 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return "dead";
  }
  const found = startOf(Number(pid));
  return found === undefined || start === "0" || found === start ? "alive" : "dead";
}

/** Process numbers mean something on one machine, in one container. */
function place(): string {
  let namespace = "";
  try {
    namespace = readlinkSync("/proc/self/ns/pid");
  } catch {
    // Not Linux.
  }
  return createHash("sha256").update(`${hostname()} ${namespace}`).digest("hex").slice(0, 6);
}

/** When a process began; "ended" for one that only waits for its parent; undefined where the system does not say. */
function startOf(pid: number): string | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The second field is a name that may hold spaces and brackets.
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    return "ZX".includes(fields[0]) ? "ended" : fields[19];
  } catch {
    return undefined;
  }
}

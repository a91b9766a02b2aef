import { randomBytes } from "node:crypto";
import { open, readdir, rm, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { basename, dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { BusyError } from "../../core/index.js";
import { makeDirectory } from "../makeDirectory.node.js";
import { livenessOf, processTag, tagPattern } from "./process.node.js";
import { onDisk } from "./storage.node.js";

/** The right to change something on disk; disposing gives it back. */
export interface Lock extends AsyncDisposable {
  release(): Promise<void>;
}

/** How long a lock is waited for, and who is told. */
export interface LockOptions {
  signal?: AbortSignal;
  /** Wait for another process instead of throwing; told once when that begins. */
  onWait?(): void;
}

/** How long a process may take from laying down its claim to holding it, before it counts as stuck. */
const claimMs = 5000;
const pollMs = 20;

/**
 * Takes the lock of a path, for this process and against all others. Every process lays down a file of its own name beside the
 * path, empty until it holds the lock; the file of a dead process counts for nothing and is removed. So no file is ever taken
 * over, and nothing has to be cleaned up by hand after a kill.
 * @throws BusyError when another process holds it, unless `onWait` is given
 */
export async function lockPath(path: string, options: LockOptions = {}): Promise<Lock> {
  await makeDirectory(dirname(path));
  let waiting = false;
  for (;;) {
    options.signal?.throwIfAborted();
    const result = await tryLock(path);
    if (typeof result !== "string") return result;
    if (options.onWait === undefined) {
      throw new BusyError(`another process works on ${path} (${result}); wait for it, or name another place`, {
        lock: result,
      });
    }
    if (!waiting) options.onWait();
    waiting = true;
    await sleep(10 * pollMs, undefined, { signal: options.signal });
  }
}

/** @returns the lock, or the file of the process that holds it */
async function tryLock(path: string): Promise<Lock | string> {
  const file = lockFile(path, `${processTag()}-${randomBytes(4).toString("hex")}`);
  const release = () => rm(file, { force: true });
  const handle = await onDisk(file, () => open(file, "wx"));
  try {
    const endMs = performance.now() + claimMs;
    for (;;) {
      const others = await claimsOn(path, file);
      const holder = others.find(({ held }) => held);
      if (holder !== undefined) {
        await release();
        return holder.file;
      }
      if (others.length === 0) break;
      // Of those that claim at once the first by name waits for the others, which give way: one of them may hold it by now.
      const first = others.every((other) => file < other.file);
      if (!first) {
        await rm(file, { force: true });
        await sleep(pollMs * (1 + Math.random()));
        return tryLock(path);
      }
      if (performance.now() > endMs) {
        await release();
        return others[0].file;
      }
      await sleep(pollMs);
    }
    await onDisk(file, () => handle.writeFile(`process ${process.pid} on ${hostname()}\n`));
    return { release, [Symbol.asyncDispose]: release };
  } catch (error) {
    await release();
    throw error;
  } finally {
    await handle.close();
  }
}

const lockFile = (path: string, id: string) => join(dirname(path), `.${basename(path)}.lock-${id}`);

/** Claims of others that are not dead. */
async function claimsOn(path: string, own: string): Promise<{ file: string; held: boolean }[]> {
  const directory = dirname(path);
  const prefix = `.${basename(path)}.lock-`;
  const id = new RegExp(`^(${tagPattern})-[0-9a-f]{8}$`);
  const claims: { file: string; held: boolean }[] = [];
  for (const name of await readdir(directory)) {
    const file = join(directory, name);
    const tag = name.startsWith(prefix) ? id.exec(name.slice(prefix.length))?.[1] : undefined;
    if (tag === undefined || file === own) continue;
    if (livenessOf(tag) === "dead") await rm(file, { force: true });
    else {
      const size = await stat(file).then(
        (found) => found.size,
        () => undefined,
      );
      if (size !== undefined) claims.push({ file, held: size > 0 });
    }
  }
  return claims;
}

import { mkdir, stat } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { UsageError } from "../core/index.js";

/**
 * Makes a directory and those above it that are missing. Node's own recursive form never returns where a directory is there
 * and yet denies that it is, as /proc does.
 * @throws UsageError that names what cannot be made
 */
export async function makeDirectory(path: string): Promise<void> {
  const missing: string[] = [];
  for (let at = resolve(path); !(await isThere(at)); at = dirname(at)) missing.push(at);
  for (const directory of missing.reverse()) {
    try {
      await mkdir(directory);
    } catch (cause) {
      // Another process may have been faster.
      if ((cause as NodeJS.ErrnoException).code === "EEXIST" && (await isThere(directory))) continue;
      throw cannotMake(directory, cause);
    }
  }
}

async function isThere(path: string): Promise<boolean> {
  try {
    if ((await stat(path)).isDirectory()) return true;
  } catch (cause) {
    // The second: something above it is a file.
    if (["ENOENT", "ENOTDIR"].includes((cause as NodeJS.ErrnoException).code ?? "") && path !== dirname(path))
      return false;
    throw cannotMake(path, cause);
  }
  throw new UsageError(`${path} is not a directory; name another one`);
}

const cannotMake = (path: string, cause: unknown) =>
  new UsageError(`the directory ${path} cannot be made (${(cause as NodeJS.ErrnoException).code}); name another one`, {
    cause,
  });

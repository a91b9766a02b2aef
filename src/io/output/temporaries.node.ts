import { randomBytes } from "node:crypto";
import { readdir, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { livenessOf, processTag, tagPattern } from "./process.node.js";

const grammar = new RegExp(`^\\.(.+)\\.(${tagPattern})-[0-9a-f]{8}\\.tmp$`);

/**
 * A hidden name beside `path`, on the same filesystem, that no other process uses. What dead processes left under such names of
 * this path is removed first.
 */
export async function temporaryBeside(path: string): Promise<string> {
  const name = basename(path);
  await clearTemporaries(dirname(path), (of) => of === name);
  return join(dirname(path), `.${name}.${processTag()}-${randomBytes(4).toString("hex")}.tmp`);
}

/** Whether a name is one that `temporaryBeside` makes. */
export const isTemporary = (name: string): boolean => grammar.test(name);

/** Removes what dead processes left under temporary names. @param wanted by the name that it was to get */
export async function clearTemporaries(directory: string, wanted: (name: string) => boolean): Promise<void> {
  const names = await readdir(directory).catch(() => []);
  for (const name of names) {
    const [, of, tag] = grammar.exec(name) ?? [];
    if (of === undefined || !wanted(of) || livenessOf(tag) !== "dead") continue;
    await rm(join(directory, name), { recursive: true, force: true }).catch(() => {});
  }
}

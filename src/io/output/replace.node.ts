import { readdir, rename, rmdir, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { syncDirectory } from "../atomic.node.js";
import { foreignIn, type Marker, notOurs, readMarker, removeOurs } from "./marker.node.js";
import { onDisk } from "./storage.node.js";

/**
 * A finished directory takes the place of another in three renames, since Node cannot exchange two: the new one becomes
 * `.NAME.rarefy-new`, the old one `.NAME.rarefy-old`, the new one NAME. Wherever that is interrupted, the names say how far
 * it came, and whoever needs NAME next finishes it. All three directories have a marker, so nothing of the user's takes part.
 */
const nextOf = (target: string) => join(dirname(target), `.${basename(target)}.rarefy-new`);
const lastOf = (target: string) => join(dirname(target), `.${basename(target)}.rarefy-old`);

/** Whether a name belongs to a finished directory, as its marker has it. */
export const belongsTo = ({ files = [] }: Marker) => {
  const names = new Set(files);
  return (name: string) => names.has(name);
};

/**
 * Gives a finished directory its name; what is there by that name makes way and is removed.
 * @param directory on the same filesystem; it and what it replaces have their markers
 * @throws UsageError when a file that is not ours has come to lie in what is replaced
 */
export async function replaceDirectory(directory: string, target: string): Promise<void> {
  await onDisk(target, async () => {
    const names = await readdir(target).catch(() => undefined);
    if (names !== undefined && names.length > 0) {
      await rename(directory, nextOf(target));
      await syncDirectory(dirname(target));
      await exchange(target);
    } else {
      // A rename replaces an empty directory on POSIX only.
      if (names !== undefined) await rmdir(target);
      await rename(directory, target);
    }
    await syncDirectory(dirname(target));
  });
  await removeLast(target);
}

/** For writers, who hold the lock: finishes what a killed process was doing to a name. */
export async function repairReplacement(target: string): Promise<void> {
  if ((await readMarker(nextOf(target))) !== undefined) {
    await removeLast(target);
    if (await isThere(target)) await exchange(target);
    else await putNext(target);
  } else if (await isThere(nextOf(target))) throw notOurs(dirname(target), basename(nextOf(target)));
  await removeLast(target);
}

/** For readers: finishes a replacement that left nothing under the name. @returns whether something is there now */
export async function finishReplacement(target: string): Promise<boolean> {
  const next = await readMarker(nextOf(target)).catch(() => undefined);
  if (next?.state === "finished") await putNext(target).catch(() => {});
  return isThere(target);
}

async function exchange(target: string): Promise<void> {
  const marker = await readMarker(target);
  const foreign = marker === undefined ? (await readdir(target))[0] : await foreignIn(target, belongsTo(marker));
  if (foreign !== undefined) throw notOurs(target, foreign);
  await rename(target, lastOf(target));
  await putNext(target);
}

/** The last rename. A reader that came between may have done it already. */
async function putNext(target: string): Promise<void> {
  try {
    await rename(nextOf(target), target);
  } catch (error) {
    if (!(await isThere(target))) throw error;
  }
}

async function removeLast(target: string): Promise<void> {
  const marker = await readMarker(lastOf(target));
  await removeOurs(lastOf(target), marker === undefined ? () => false : belongsTo(marker), target);
}

const isThere = (path: string) =>
  stat(path).then(
    () => true,
    () => false,
  );

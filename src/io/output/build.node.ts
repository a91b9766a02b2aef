import { mkdir, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { syncDirectory } from "../atomic.node.js";
import { onDisk } from "./storage.node.js";
import { temporaryBeside } from "./temporaries.node.js";

/**
 * Makes a directory whole or not at all: filled beside `target`, then given its name. Nothing is left of a build that throws.
 * @param giveName default: a rename, for a name that is free
 * @throws StorageError
 */
export async function buildDirectory(
  target: string,
  fill: (directory: string) => Promise<void>,
  giveName = (directory: string) => rename(directory, target),
): Promise<void> {
  const directory = await temporaryBeside(target);
  await onDisk(directory, () => mkdir(directory));
  try {
    await fill(directory);
    await syncDirectory(directory);
    await onDisk(target, () => giveName(directory));
    await syncDirectory(dirname(target));
  } catch (error) {
    await rm(directory, { recursive: true, force: true });
    throw error;
  }
}

import { randomBytes } from "node:crypto";
import { constants, copyFile, link, open, realpath, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { ByteSink, FileSinks } from "./byteSink.js";
import { createFile } from "./byteSink.js";

/** A hidden name beside `path`, on the same filesystem, that no other process uses. */
export function temporaryBeside(path: string): string {
  return join(dirname(path), `.${basename(path)}.${process.pid}-${randomBytes(4).toString("hex")}.tmp`);
}

/** Makes the names in a directory durable. */
export async function syncDirectory(directory: string): Promise<void> {
  // Windows cannot open directories; there the rename itself is all there is.
  if (process.platform === "win32") return;
  const handle = await open(directory, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Files made in a directory: written under a temporary name, synced, renamed, the directory synced. */
export function directorySinks(directory: string): FileSinks {
  return {
    async create(name) {
      const path = join(directory, name);
      const temporary = temporaryBeside(path);
      const handle = await open(temporary, "wx");
      const sink: ByteSink = {
        async write(bytes) {
          for (let done = 0; done < bytes.byteLength; ) {
            const { bytesWritten } = await handle.write(bytes, done);
            done += bytesWritten;
          }
        },
        async commit() {
          await handle.sync();
          await handle.close();
          await rename(temporary, path);
          await syncDirectory(directory);
        },
        async abort() {
          await handle.close().catch(() => {});
          await rm(temporary, { force: true });
        },
      };
      return sink;
    },
  };
}

/** Writes a whole file or nothing; a file of that name is replaced. */
export function writeFileAtomic(path: string, bytes: Uint8Array): Promise<void> {
  return createFile(directorySinks(dirname(path)), basename(path), (sink) => sink.write(bytes));
}

/**
 * Gives a file a second name without doubling the disk: a hard link, or a copy where the filesystem refuses one. The two
 * may be one file, so neither may be changed in place; rarefy only ever replaces files.
 */
export async function linkOrCopyFile(source: string, target: string): Promise<void> {
  // A link to a symbolic link (the Hub cache is made of them) would be another symbolic link.
  const real = await realpath(source);
  try {
    await link(real, target);
  } catch (error) {
    if (!refusesLinks.has((error as NodeJS.ErrnoException).code ?? "")) throw error;
    await copyFileAtomic(real, target);
  }
}

/** Copies a whole file or nothing; where the filesystem can, the two share their blocks until one is changed. */
export async function copyFileAtomic(source: string, target: string): Promise<void> {
  const temporary = temporaryBeside(target);
  try {
    await copyFile(source, temporary, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
    await rename(temporary, target);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

const refusesLinks = new Set(["EXDEV", "EPERM", "EMLINK", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EACCES"]);

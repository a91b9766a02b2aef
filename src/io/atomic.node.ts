import { constants, copyFile, link, open, realpath, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { ByteSink, FileSinks } from "./byteSink.js";
import { onDisk } from "./output/storage.node.js";
import { temporaryBeside } from "./output/temporaries.node.js";

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

/**
 * Files made in a directory: written under a temporary name, synced, renamed, the directory synced.
 * @throws StorageError where the disk is full or read-only; nothing is left of the file then
 */
export function directorySinks(directory: string): FileSinks {
  return { create: async (name) => (await newFile(join(directory, name))).sink };
}

/** A file that is being written under a temporary name. */
export interface NewFile {
  readonly temporary: string;
  /** Its `commit` is `finish` and `giveName`. */
  readonly sink: ByteSink;
  /** Makes it durable, still without its name. */
  finish(): Promise<void>;
  giveName(): Promise<void>;
}

/** Begins a file that is to be called `path`. @throws StorageError */
export async function newFile(path: string): Promise<NewFile> {
  const temporary = await temporaryBeside(path);
  const handle = await onDisk(path, () => open(temporary, "wx"));
  const finish = () =>
    onDisk(path, async () => {
      await handle.sync();
      await handle.close();
    });
  const giveName = () =>
    onDisk(path, async () => {
      await rename(temporary, path);
      await syncDirectory(dirname(path));
    });
  const sink: ByteSink = {
    async write(bytes) {
      for (let done = 0; done < bytes.byteLength; ) {
        const { bytesWritten } = await onDisk(path, () => handle.write(bytes, done));
        done += bytesWritten;
      }
    },
    async commit() {
      await finish();
      await giveName();
    },
    async abort() {
      await handle.close().catch(() => {});
      await rm(temporary, { force: true });
    },
  };
  return { temporary, sink, finish, giveName };
}

/** Writes a whole file or nothing; a file of that name is replaced. @throws StorageError */
export function writeFileAtomic(path: string, bytes: Uint8Array): Promise<void> {
  return writeFilesAtomic([[path, bytes]]);
}

/** Writes several files, or none of them where the disk is full: they get their names when all are whole. @throws StorageError */
export async function writeFilesAtomic(files: readonly (readonly [path: string, bytes: Uint8Array])[]): Promise<void> {
  const made: NewFile[] = [];
  try {
    for (const [path, bytes] of files) {
      const file = await newFile(path);
      made.push(file);
      await file.sink.write(bytes);
      await file.finish();
    }
    for (const { giveName } of made) await giveName();
  } catch (error) {
    for (const { sink } of made) await sink.abort();
    throw error;
  }
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
  const temporary = await temporaryBeside(target);
  try {
    await onDisk(target, async () => {
      await copyFile(source, temporary, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
      await rename(temporary, target);
    });
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

const refusesLinks = new Set(["EXDEV", "EPERM", "EMLINK", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EACCES"]);

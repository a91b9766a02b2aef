import { DeviceError, FormatError } from "../core/index.js";
import { blobSource } from "./blob.js";
import type { FileSinks } from "./byteSink.js";
import type { ByteSource, ModelFiles } from "./byteSource.js";
import { targetOf } from "./range.js";

/** Declarations that merge with the DOM's where an application has them, and stand for them where it has not. */
declare global {
  interface FileSystemHandle {}
  interface FileSystemFileHandle {}
  interface FileSystemDirectoryHandle {}
  interface StorageEstimate {}
}

/** The parts of the File System API that TypeScript's DOM library leaves out. */
export interface SyncAccessHandle {
  getSize(): number;
  truncate(size: number): void;
  read(bytes: Uint8Array, options: { at: number }): number;
  write(bytes: Uint8Array, options: { at: number }): number;
  flush(): void;
  close(): void;
}
export type FileHandle = FileSystemFileHandle & {
  createSyncAccessHandle(options?: { mode: "read-only" | "readwrite" }): Promise<SyncAccessHandle>;
};
export type DirectoryHandle = FileSystemDirectoryHandle & { values(): AsyncIterable<FileSystemHandle> };

/** @throws DeviceError while someone else has it open */
export async function openForWriting(directory: DirectoryHandle, name: string): Promise<SyncAccessHandle> {
  const handle = (await directory.getFileHandle(name, { create: true })) as FileHandle;
  try {
    return await handle.createSyncAccessHandle();
  } catch (cause) {
    if ((cause as Error).name !== "NoModificationAllowedError") throw cause;
    throw new DeviceError("another page of this site is storing the same model; wait for it or close it", { cause });
  }
}

/** Undefined outside dedicated workers, and where someone has the file open in a browser that lets only one. */
async function openForReading(handle: FileHandle): Promise<SyncAccessHandle | undefined> {
  try {
    return await handle.createSyncAccessHandle?.({ mode: "read-only" });
  } catch (error) {
    if (["NoModificationAllowedError", "InvalidStateError"].includes((error as Error).name)) return undefined;
    throw error;
  }
}

/** A byte source that reads straight to where the bytes belong, shared memory included, without a copy or a turn of the event loop. */
function accessSource(name: string, access: SyncAccessHandle): ByteSource {
  const source: ByteSource = {
    name,
    byteLength: access.getSize(),
    async read(offset, length, into) {
      const target = targetOf(source, offset, length, into);
      const read = access.read(target, { at: offset });
      if (read === length) return target;
      throw new FormatError({
        file: name,
        problem: `ended after ${offset + read} bytes`,
        hint: "Store the model again",
      });
    },
    async close() {
      access.close();
    },
  };
  return source;
}

/** Opens a file of the store for writing in place. */
export async function writeFile(
  directory: DirectoryHandle,
  name: string,
  write: (access: SyncAccessHandle) => void | Promise<void>,
): Promise<void> {
  const access = await openForWriting(directory, name);
  try {
    await write(access);
    access.flush();
  } finally {
    access.close();
  }
}

/** @throws QuotaExceededError */
export function writeAll(access: SyncAccessHandle, bytes: Uint8Array, at: number): void {
  // A full disk may also show as a short write.
  if (access.write(bytes, { at }) < bytes.byteLength)
    throw new DOMException("the file could not be extended", "QuotaExceededError");
}

export function writeJson(access: SyncAccessHandle, value: unknown): void {
  const bytes = new TextEncoder().encode(JSON.stringify(value));
  access.truncate(0);
  writeAll(access, bytes, 0);
}

/**
 * The model's files in one of the store's directories.
 * @param names those that there are
 * @param inPlace reads by synchronous access handles, where the browser gives some
 */
export function directoryFiles(
  location: string,
  directory: DirectoryHandle,
  names: ReadonlySet<string>,
  inPlace = false,
): ModelFiles {
  return {
    location,
    async open(name) {
      if (!names.has(name)) return undefined;
      const handle = (await directory.getFileHandle(name)) as FileHandle;
      const access = inPlace ? await openForReading(handle) : undefined;
      if (access !== undefined) return accessSource(`${location}/${name}`, access);
      return blobSource(`${location}/${name}`, await handle.getFile());
    },
    async close() {},
  };
}

/** Makes files in a directory. @param names gets each as it is committed */
export function directorySinks(directory: DirectoryHandle, names: Set<string>): FileSinks {
  return {
    async create(name) {
      const access = await openForWriting(directory, name);
      let open = true;
      const close = () => {
        if (open) access.close();
        open = false;
      };
      access.truncate(0);
      // Not there until it is committed again.
      names.delete(name);
      let at = 0;
      return {
        async write(bytes) {
          writeAll(access, bytes, at);
          at += bytes.byteLength;
        },
        async commit() {
          access.flush();
          close();
          names.add(name);
        },
        async abort() {
          close();
          if (!names.has(name)) await directory.removeEntry(name);
        },
      };
    },
  };
}

import { constants, type FileHandle, open, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { FormatError, quote, UsageError } from "../core/index.js";
import type { ByteSource, LocalModelFiles } from "./byteSource.js";
import { isPlainFileName } from "./fileName.js";
import { isMissing } from "./isMissing.node.js";
import { endsEarly, targetOf } from "./range.js";

// One read call moves at most 2³¹ − 4096 bytes on Linux; larger reads are done in steps.
const maxReadBytes = 2 ** 30;

/** Opens a file for positional reads. @returns undefined when there is no such file. @throws FormatError on a directory. */
export async function openFile(path: string): Promise<ByteSource | undefined> {
  let handle: FileHandle;
  try {
    // Without O_NONBLOCK a pipe of that name would block until somebody writes to it.
    handle = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
  const stat = await handle.stat();
  if (!stat.isFile()) {
    await handle.close();
    throw new FormatError({ file: path, problem: "not a regular file" });
  }
  return new FileSource(path, stat.size, handle);
}

class FileSource implements ByteSource {
  constructor(
    readonly name: string,
    readonly byteLength: number,
    readonly handle: FileHandle,
  ) {}

  async read(offset: number, length: number, into?: Uint8Array): Promise<Uint8Array> {
    const target = targetOf(this, offset, length, into);
    for (let done = 0; done < length; ) {
      const step = Math.min(length - done, maxReadBytes);
      const { bytesRead } = await this.handle.read(target, done, step, offset + done);
      if (bytesRead === 0) throw endsEarly(this.name, length, done);
      done += bytesRead;
    }
    return target;
  }

  close(): Promise<void> {
    return this.handle.close();
  }
}

/** @param location what messages call it; the directory itself by default. */
export function directoryFiles(directory: string, location = directory): LocalModelFiles {
  let known: string | undefined;
  /** A result that takes the place of another while it is opened would give files of both. */
  const checkSame = async () => {
    const found = await stat(directory).catch(() => undefined);
    const now = found && `${found.dev} ${found.ino}`;
    if (known !== undefined && now !== known) {
      throw new FormatError({ file: location, problem: "another result has taken its place meanwhile; open it again" });
    }
    known = now;
  };
  return {
    location,
    directory,
    async open(name) {
      if (!isPlainFileName(name)) throw new UsageError(`${quote(name)} is not a plain file name`);
      const source = await openFile(join(directory, name));
      try {
        await checkSame();
        return source;
      } catch (error) {
        await source?.close();
        throw error;
      }
    },
    async names() {
      const names = (await readdir(directory)).filter((name) => !name.startsWith("."));
      const files = await Promise.all(names.map(async (name) => isFile(join(directory, name))));
      return names.filter((_, i) => files[i]);
    },
    pathOf: (name) => join(directory, name),
    async close() {},
  };
}

/** Links are followed, as the Hub's cache consists of them; one that leads nowhere is no file. */
const isFile = (path: string): Promise<boolean> =>
  stat(path).then(
    (found) => found.isFile(),
    () => false,
  );

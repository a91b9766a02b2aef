import { StorageError } from "../../core/index.js";

/** What the system says where a file cannot be written, in words, with what to do. */
const problems: Readonly<Record<string, string>> = {
  ENOSPC: "the disk is full; free some space",
  EDQUOT: "the disk quota is used up; free some space",
  EROFS: "the file system is read-only; name another place",
  EACCES: "there is no permission to write; name another place",
  EPERM: "the system does not permit it; name another place",
  EIO: "the disk reports an error",
  EFBIG: "the file would be larger than the file system allows",
  EMFILE: "this process has too many files open",
  ENFILE: "the system has too many files open",
};

/** Runs what changes files. @throws StorageError that names the path, in place of the system's own errors */
export async function onDisk<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException | undefined)?.code ?? "";
    if (!Object.hasOwn(problems, code)) throw cause;
    throw new StorageError(`${path} cannot be written: ${problems[code]} (${code})`, { cause, code });
  }
}

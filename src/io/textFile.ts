import { FormatError } from "../core/index.js";
import type { ByteSource, ModelFiles } from "./byteSource.js";

/** Strict UTF-8. @throws FormatError */
export function decodeUtf8(bytes: Uint8Array, file: string): string {
  try {
    // The decoder refuses views of shared memory.
    const owned = bytes.buffer instanceof ArrayBuffer ? bytes : bytes.slice();
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(owned);
  } catch (cause) {
    const utf16 = (bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff);
    const problem = utf16 ? "UTF-16 text (it begins with its byte order mark)" : "not UTF-8 text";
    throw new FormatError({ file, problem, hint: "Save it as UTF-8" }, { cause });
  }
}

/** Reads all of a source that is not larger than `maxBytes`, and closes it. @throws FormatError */
export async function readWhole(source: ByteSource, maxBytes: number): Promise<Uint8Array> {
  try {
    if (source.byteLength > maxBytes) {
      throw new FormatError({
        file: source.name,
        problem: `${source.byteLength} bytes`,
        expected: `at most ${maxBytes}`,
      });
    }
    return await source.read(0, source.byteLength);
  } finally {
    await source.close();
  }
}

/** A whole text file of a model. @returns undefined when there is none. @throws FormatError, also above `maxBytes`. */
export async function readTextFile(files: ModelFiles, name: string, maxBytes: number): Promise<string | undefined> {
  const source = await files.open(name);
  return source && decodeUtf8(await readWhole(source, maxBytes), source.name);
}

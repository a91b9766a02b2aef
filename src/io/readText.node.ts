import { readFile } from "node:fs/promises";
import { RarefyError } from "../core/index.js";
import { bundledText, isBundledText } from "./bundled.node.js";

/** A text file of the user, or one that comes with the package by its name (`tiny-6m:eval`). @throws RarefyError when it cannot be read, is empty or is not UTF-8. */
export async function readText(path: string): Promise<string> {
  const fail = (problem: string, cause?: unknown) => new RarefyError(`${path}: ${problem}`, { cause });
  let bytes: Uint8Array;
  try {
    bytes = await readFile(isBundledText(path) ? bundledText(path) : path);
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    throw fail(code === "ENOENT" ? "there is no such file" : code === "EISDIR" ? "is a directory" : message, cause);
  }
  if (bytes.length === 0) throw fail("the file is empty");
  const [first, second] = bytes;
  if ((first === 0xff && second === 0xfe) || (first === 0xfe && second === 0xff))
    throw fail("is UTF-16 text; save it as UTF-8");
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw fail("is not UTF-8 text; save it as UTF-8", cause);
  }
}

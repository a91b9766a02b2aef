import { open } from "node:fs/promises";
import { Readable } from "node:stream";
import type { ReadableStream as NodeReadableStream } from "node:stream/web";
import { RarefyError } from "../../core/index.js";
import { bundledText, isBundledText } from "../../io/index.node.js";

/** Texts above this would not fit a JavaScript string. */
const maxCharacters = 2 ** 29 - 24;

/**
 * A UTF-8 text file, `.xz` or plain, piece by piece; or one that comes with the package by its name (`tiny-6m:eval`).
 * @throws RarefyError when it cannot be read, is not UTF-8 or not xz
 */
export async function readTrainingText(path: string, signal?: AbortSignal): Promise<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  let text = "";
  try {
    for await (const bytes of await openText(path)) {
      signal?.throwIfAborted();
      const piece = decoder.decode(bytes, { stream: true });
      if (text.length + piece.length > maxCharacters)
        throw new RarefyError(`${path}: more than ${maxCharacters} characters; split it`);
      text += piece;
    }
    return text + decoder.decode();
  } catch (cause) {
    if (cause instanceof RarefyError || signal?.aborted) throw cause;
    const missing = (cause as NodeJS.ErrnoException).code === "ENOENT";
    throw new RarefyError(`${path}: ${missing ? "there is no such file" : (cause as Error).message}`, { cause });
  }
}

/** Opens the file before anything else, so that one that is missing fails here and not in a stream nobody reads yet. */
async function openText(path: string): Promise<AsyncIterable<Uint8Array>> {
  const file = await open(isBundledText(path) ? bundledText(path) : path);
  if (!path.endsWith(".xz")) return file.createReadStream();
  const { XzReadableStream } = await loadXz();
  const compressed = Readable.toWeb(file.createReadStream()) as ReadableStream<Uint8Array>;
  return new XzReadableStream(compressed) as unknown as NodeReadableStream<Uint8Array>;
}

/** The package is CommonJS of a form in which Node sees no named exports: they all lie in its default. */
async function loadXz(): Promise<typeof import("xz-decompress")> {
  const loaded = await import("xz-decompress");
  return loaded.default ?? loaded;
}

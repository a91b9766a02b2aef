import { createReadStream } from "node:fs";
import { Readable } from "node:stream";
import type { ReadableStream as NodeReadableStream } from "node:stream/web";
import { RarefyError } from "../../core/index.js";

/** Texts above this would not fit a JavaScript string. */
const maxCharacters = 2 ** 29 - 24;

/**
 * A UTF-8 text file, `.xz` or plain, piece by piece.
 * @throws RarefyError when it cannot be read, is not UTF-8 or not xz
 */
export async function readTrainingText(path: string, signal?: AbortSignal): Promise<string> {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  let text = "";
  try {
    for await (const bytes of await openText(path)) {
      signal?.throwIfAborted();
      text += decoder.decode(bytes, { stream: true });
      if (text.length > maxCharacters)
        throw new RarefyError(`${path}: more than ${maxCharacters} characters; split it`);
    }
    return text + decoder.decode();
  } catch (cause) {
    if (cause instanceof RarefyError || signal?.aborted) throw cause;
    const missing = (cause as NodeJS.ErrnoException).code === "ENOENT";
    throw new RarefyError(`${path}: ${missing ? "there is no such file" : (cause as Error).message}`, { cause });
  }
}

async function openText(path: string): Promise<AsyncIterable<Uint8Array>> {
  const file = createReadStream(path);
  if (!path.endsWith(".xz")) return file;
  const { XzReadableStream } = await import("xz-decompress");
  const stream = new XzReadableStream(Readable.toWeb(file) as ReadableStream<Uint8Array>);
  return stream as unknown as NodeReadableStream<Uint8Array>;
}

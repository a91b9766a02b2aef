import type { OnProgress } from "rarefy/core";
import type { TextSource } from "../protocol.js";
import type { CallContext } from "../rpc.js";

/** What long calls of the library take. */
export function job({ emit, signal }: CallContext): { onProgress: OnProgress; signal: AbortSignal } {
  return { signal, onProgress: (event) => emit({ type: "progress", ...event }) };
}

/** A text and its name for messages. @throws Error for one that cannot be loaded or is no UTF-8 */
export async function readText(source: TextSource, signal: AbortSignal): Promise<{ name: string; text: string }> {
  const name = "file" in source ? source.file.name : new URL(source.url).pathname.split("/").pop()!;
  const bytes = "file" in source ? await source.file.arrayBuffer() : await fetched(source.url, name, signal);
  try {
    return { name, text: new TextDecoder("utf-8", { fatal: true }).decode(bytes) };
  } catch {
    throw new Error(`${name} is no text in UTF-8; save it as UTF-8, or choose another file`);
  }
}

async function fetched(url: string, name: string, signal: AbortSignal): Promise<ArrayBuffer> {
  const response = await fetch(url, { signal });
  if (!response.ok) throw new Error(`the text ${name} could not be loaded (status ${response.status})`);
  return response.arrayBuffer();
}

import type { ByteSource, FileSinks } from "rarefy/io";
import type { CallContext } from "../rpc.js";

const pieceBytes = 8 * 2 ** 20;

/** A file piece by piece. @throws the signal's reason */
export async function* pieces(source: ByteSource, { signal }: Pick<CallContext, "signal">): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < source.byteLength; at += pieceBytes) {
    signal.throwIfAborted();
    yield await source.read(at, Math.min(pieceBytes, source.byteLength - at));
  }
}

export const readAll = (source: ByteSource): Promise<Uint8Array> => source.read(0, source.byteLength);

/** Copies a file. */
export async function writeWhole(
  sinks: FileSinks,
  name: string,
  source: ByteSource,
  context: Pick<CallContext, "signal">,
): Promise<void> {
  const sink = await sinks.create(name);
  try {
    for await (const piece of pieces(source, context)) await sink.write(piece);
    await sink.commit();
  } catch (error) {
    await sink.abort();
    throw error;
  }
}

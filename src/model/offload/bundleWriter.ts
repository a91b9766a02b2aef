import { breathe, type JobOptions, Stage } from "../../core/index.js";
import type { ByteSink } from "../../io/index.js";

/** @returns writes bytes of a file to where they belong, from the first to the last; gaps are zeros */
export function bundleWriter(
  sink: Pick<ByteSink, "write">,
  what: string,
  byteLength: number,
  { signal, onProgress }: JobOptions,
): (at: number, bytes: Uint8Array) => Promise<void> {
  const stage = new Stage(`write ${what}`, byteLength, "bytes", onProgress);
  let written = 0;
  const write = async (bytes: Uint8Array): Promise<void> => {
    await breathe(signal);
    await sink.write(bytes);
    written += bytes.byteLength;
    stage.advance(bytes.byteLength);
  };
  return async (at, bytes) => {
    if (at > written) await write(new Uint8Array(at - written));
    await write(bytes);
  };
}

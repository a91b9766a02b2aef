import type { ByteSource, ModelFiles } from "./byteSource.js";
import { targetOf } from "./range.js";

/** A byte source over an array that is already in memory; reads are copies. */
export function memorySource(name: string, bytes: Uint8Array): ByteSource {
  const source: ByteSource = {
    name,
    byteLength: bytes.byteLength,
    async read(offset, length, into) {
      const target = targetOf(source, offset, length, into);
      target.set(bytes.subarray(offset, offset + length));
      return target;
    },
    async close() {},
  };
  return source;
}

/** The files of a model held in memory, by plain name. */
export function memoryFiles(location: string, files: ReadonlyMap<string, Uint8Array>): ModelFiles {
  return {
    location,
    async open(name) {
      const bytes = files.get(name);
      return bytes === undefined ? undefined : memorySource(`${location}/${name}`, bytes);
    },
    async close() {},
  };
}

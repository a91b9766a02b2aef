import { FormatError } from "../core/index.js";
import type { ByteSource, ModelFiles } from "./byteSource.js";
import { targetOf } from "./range.js";

/** A byte source over a Blob: a file that was chosen or dropped, or one of the browser's private file system. */
export function blobSource(name: string, blob: Blob): ByteSource {
  const source: ByteSource = {
    name,
    byteLength: blob.size,
    async read(offset, length, into) {
      const target = targetOf(source, offset, length, into);
      try {
        target.set(new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer()));
      } catch (cause) {
        const problem = `cannot be read (${(cause as Error).message})`;
        throw new FormatError({ file: name, problem, hint: "It was changed or moved; choose it again" }, { cause });
      }
      return target;
    },
    async close() {},
  };
  return source;
}

/** The files of a model as blobs, by plain name. */
export function blobFiles(location: string, blobs: ReadonlyMap<string, Blob>): ModelFiles {
  return {
    location,
    async open(name) {
      const blob = blobs.get(name);
      return blob === undefined ? undefined : blobSource(`${location}/${name}`, blob);
    },
    async close() {},
  };
}

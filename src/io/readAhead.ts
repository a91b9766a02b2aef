import type { ByteSource } from "./byteSource.js";
import { targetOf } from "./range.js";

/** Blocks fetched ahead of a reader that goes from block to block. */
const blocksAhead = 3;

/** Blocks kept: those ahead, and some behind for what is read twice. */
const blocksKept = 6;

/**
 * A source that is slow to answer, read in few large pieces: blocks are kept for a while, and one that follows on the last
 * brings the next ones with it, at once. Holds up to six blocks.
 * @param head the first bytes of the source, known already; may be empty
 */
export function readAhead(source: ByteSource, head: Uint8Array, blockBytes: number): ByteSource {
  const { byteLength } = source;
  /** By number, in the order in which they were last used. Block i begins at head.length + i · blockBytes. */
  const blocks = new Map<number, Promise<Uint8Array>>();
  const blockCount = Math.ceil((byteLength - head.byteLength) / blockBytes);
  let last = -1;

  function fetchBlock(index: number): Promise<Uint8Array> {
    let block = blocks.get(index);
    if (block === undefined) {
      const start = head.byteLength + index * blockBytes;
      block = source.read(start, Math.min(blockBytes, byteLength - start));
      // Forgotten, so that a later read tries again; who waits for it gets the error.
      block.catch(() => blocks.delete(index));
    }
    blocks.delete(index);
    blocks.set(index, block);
    return block;
  }

  function blockAt(index: number): Promise<Uint8Array> {
    const block = fetchBlock(index);
    if (index === last + 1)
      for (let next = index + 1; next <= Math.min(index + blocksAhead, blockCount - 1); next++) void fetchBlock(next);
    last = index;
    for (const oldest of blocks.keys()) {
      if (blocks.size <= blocksKept) break;
      blocks.delete(oldest);
    }
    return block;
  }

  return {
    name: source.name,
    byteLength,
    async read(offset, length, into) {
      const target = targetOf(source, offset, length, into);
      const fromHead = head.subarray(offset, offset + length);
      target.set(fromHead);
      for (let done = fromHead.byteLength; done < length; ) {
        const beyondHead = offset + done - head.byteLength;
        const index = Math.floor(beyondHead / blockBytes);
        const piece = (await blockAt(index)).subarray(beyondHead - index * blockBytes).subarray(0, length - done);
        target.set(piece, done);
        done += piece.byteLength;
      }
      return target;
    },
    async close() {
      blocks.clear();
      await source.close();
    },
  };
}

import type { Arena } from "./arena.js";

/** The most bytes up to `byteLength` that threads share evenly, as `readBytes` wants it. */
export const wholeShares = (byteLength: number, threads: number) =>
  Math.floor(byteLength / (128 * threads)) * 128 * threads;

/** Bytes per second of the fastest of `repeats` passes over `byteLength` bytes of a memory. @param byteLength of `wholeShares` */
export function readBandwidth(arena: Arena, byteLength: number, repeats: number, threads: number): number {
  const start = arena.allocate(byteLength);
  try {
    // Untouched pages all map to one page of zeros, which the cache holds.
    const bytes = arena.bytes(start, byteLength);
    for (let i = 0; i < byteLength; i += 4096) bytes[i] = 1;
    const sink = arena.scratch(16 * threads);
    let best = 0;
    for (let i = 0; i < repeats; i++) {
      const begun = performance.now();
      arena.record("readBytes", { start, byteLength, sink });
      arena.run();
      best = Math.max(best, (byteLength * 1000) / (performance.now() - begun));
    }
    return best;
  } finally {
    arena.release(start);
  }
}

import * as layout from "./layout.js";

/** Bytes of scratch of one thread in a matrix-matrix product of so many tokens, a multiple of four. */
export const matmulScratchBytes = (tokens: number, isSparse: boolean): number =>
  layout.panelBytes + (isSparse ? layout.unpackedBytes : 0) + layout.tilesAtOnce * tokens * 256;

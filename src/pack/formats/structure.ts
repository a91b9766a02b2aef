/** How weights that are 0 are left out. Formats of one structure hold codes of different dense formats. */
export const structureIds = ["bitmask", "2:4", "block", "csr", "tiled-csl", "int8-mixed"] as const;
/** One of `structureIds`. */
export type StructureId = (typeof structureIds)[number];

/** How the zeros of a matrix lie. */
export interface ZeroShares {
  /** Share of weights that are not 0. */
  density: number;
  /** Share of blocks of 32 × 32 with any weight that is not 0. */
  blockDensity: number;
  /** At most two of every four consecutive inputs of a row are not 0. */
  twoOfFour: boolean;
}

/** The zeros that a structure can leave out. */
export interface ZeroPattern {
  holds(zeros: ZeroShares): boolean;
  /** The share that decides how much is stored. */
  shareOf(zeros: ZeroShares): number;
  /** Whether a weight of a sample at such a share is not 0: what products are timed and tested with. */
  present(row: number, input: number, share: number): boolean;
}

/** A number from 0 to 1 for each n. */
const noise = (n: number) => (Math.imul(n ^ (n >>> 15), 0x9e3779b1) >>> 8) / 2 ** 24;

const noiseAt = (row: number, input: number) => noise((row << 9) + input);

export const anywhere: ZeroPattern = {
  holds: () => true,
  shareOf: ({ density }) => density,
  present: (row, input, share) => noiseAt(row, input) < share,
};

/** At most two of every four consecutive inputs; the share is always ½. */
export const inFours: ZeroPattern = {
  holds: ({ twoOfFour }) => twoOfFour,
  shareOf: ({ density }) => density,
  present: (row, input) => ((Math.floor(noiseAt(row, input >> 2) * 4) ^ input) & 3) < 2,
};

/** Blocks of 32 × 32. */
export const inBlocks: ZeroPattern = {
  holds: () => true,
  shareOf: ({ blockDensity }) => blockDensity,
  present: (row, input, share) => noiseAt(row >> 5, input >> 5) < share,
};

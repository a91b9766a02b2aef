/** Rows of one tile: what 32 threads hold in four sums each. */
export const sparseTileRows = 128;

/** How the kernels read one format; see src/pack/formats/bitmask.ts and twoOfFour.ts for what lies where. */
export interface SparseAccess {
  readonly scaled: boolean;
  /**
   * WGSL: constants, and the functions
   *   codeAt(tile, column, row) -> u32       the code of one weight, that of 0 where it is left out
   * and of bit masks, for `sparseMatvec`,
   *   addGroup(tile, group, inGroup, lane)   adds the products of 32 columns, whose inputs begin at xTile[inGroup], to
   *                                          `acc`: of rows lane, lane + 32, lane + 64, lane + 96
   *   dataOf(tile, column) -> u32            of a kept input: what is counted of its weights in this tile, see `countScale`
   * and for quantised values scaleAt(tile, group, row) -> f32.
   */
  readonly code: string;
  /** Bytes that stand behind 1 of what a product counts of its weights, in a part of so many rows. */
  countScale(rows: number): number;
}

/** A tile and what follows from its rows. `words` are the chunk's. */
const common = /* wgsl */ `
struct Tile { start: u32, blocks: u32, columns: u32, groups: u32 }
fn tileOf(place: vec4<u32>, columns: u32) -> Tile {
  return Tile(place.x * 4u, (place.y + 31u) / 32u, columns, (columns + 31u) / 32u);
}
/** 32 bits from any byte on. */
fn load32(at: u32) -> u32 {
  let low = words[at / 4u];
  let shift = at % 4u * 8u;
  if (shift == 0u) { return low; }
  return (low >> shift) | (words[at / 4u + 1u] << (32u - shift));
}
/** bf16 number \`row\` of a run that lies as \`interleaved8\` says. */
fn bf16At(at: u32, row: u32) -> u32 {
  return (words[at / 4u + row / 8u * 4u + row % 4u] >> (row / 4u % 2u * 16u)) & 0xffffu;
}
fn bf16(bits: u32) -> f32 { return bitcast<f32>(bits << 16u); }`;

const scaleAt = /* wgsl */ `
fn scaleAt(tile: Tile, group: u32, row: u32) -> f32 {
  return bf16(bf16At(tile.start + SCALES_AT(tile) + group * tile.blocks * 64u, row));
}`;

/** What a code stands for besides its scale. */
const values = {
  bf16: { scaled: false, bits: 16, zero: 0, code: "fn valueOf(code: u32) -> f32 { return bf16(code); }" },
  q8: { scaled: true, bits: 8, zero: 128, code: "fn valueOf(code: u32) -> f32 { return f32(code) - 128.0; }" },
  q4: { scaled: true, bits: 4, zero: 8, code: "fn valueOf(code: u32) -> f32 { return f32(code) - 8.0; }" },
} as const;
type Value = (typeof values)[keyof typeof values];

function bitmask({ scaled, bits, zero, code }: Value): SparseAccess {
  const bytesOf = bits === 4 ? "(count + 1u) / 2u" : `count * ${bits / 8}u`;
  const codeAtIndex = {
    16: "load32(at + 2u * n) & 0xffffu",
    8: "(load32(at + n) & 0xffu) ^ 0x80u", // stored less 128
    4: "(load32(at + n / 2u) >> (n % 2u * 4u)) & 15u",
  }[bits];
  return {
    scaled,
    countScale: () => 1,
    code: /* wgsl */ `
${common}
${code}
fn SCALES_AT(tile: Tile) -> u32 { return (tile.columns + 1u) * 4u; }
${scaled ? scaleAt : ""}
fn begin(tile: Tile, column: u32) -> u32 {
  let data = SCALES_AT(tile) + ${scaled ? "tile.groups * tile.blocks * 64u" : "0u"};
  return tile.start + data + words[tile.start / 4u + column];
}
fn codeBytes(count: u32) -> u32 { return ${bytesOf}; }
fn codeOf(at: u32, n: u32) -> u32 { return ${codeAtIndex}; }
fn codeAt(tile: Tile, column: u32, row: u32) -> u32 {
  var at = begin(tile, column);
  for (var block = 0u; block < row / 32u; block += 1u) { at += 4u + codeBytes(countOneBits(load32(at))); }
  let mask = load32(at);
  let bit = 1u << (row % 32u);
  if ((mask & bit) == 0u) { return ${zero}u; }
  return codeOf(at + 4u, countOneBits(mask & (bit - 1u)));
}
fn dataOf(tile: Tile, column: u32) -> u32 {
  return words[tile.start / 4u + column + 1u] - words[tile.start / 4u + column];
}
fn addGroup(tile: Tile, group: u32, inGroup: u32, lane: u32, acc: ptr<function, array<f32, 4>>) {
  let bit = 1u << lane;
  for (var c = 0u; c < 32u; c += 1u) {
    let x = xTile[inGroup + c];
    if (x == 0.0) { continue; }
    var at = begin(tile, group * 32u + c);
    for (var block = 0u; block < 4u; block += 1u) {
      if (block >= tile.blocks) { break; }
      let mask = load32(at);
      if ((mask & bit) != 0u) {
        (*acc)[block] = fma(x, valueOf(codeOf(at + 4u, countOneBits(mask & (bit - 1u)))), (*acc)[block]);
      }
      at += 4u + codeBytes(countOneBits(mask));
    }
  }
}`,
  };
}

function twoOfFour({ scaled, bits, zero }: Value): SparseAccess {
  const unitInputs = bits === 16 ? 4 : 8;
  const blockBytes = bits === 16 ? 16 + 128 : 32 + bits * 16;
  // Of row k of a block: words of positions and of codes, as `place` in src/pack/formats/twoOfFour.ts has them.
  const eight = /* wgsl */ `
fn positionsOf(at: u32, k: u32) -> u32 {
  return (words[at / 4u + k / 16u * 4u + k % 4u] >> (k / 4u % 4u * 2u)) & 0x03030303u;
}
fn codesOf(at: u32, k: u32) -> u32 {
  return ${bits === 8 ? "words[at / 4u + 8u + k / 4u * 4u + k % 4u]" : "(words[at / 4u + 8u + k / 4u % 4u * 4u + k % 4u] >> (k / 16u * 4u)) & 0x0f0f0f0fu"};
}
fn entry(at: u32, k: u32, quad: u32, n: u32) -> vec2<u32> {
  let shift = (quad * 2u + n) * 8u;
  return vec2<u32>((positionsOf(at, k) >> shift) & 3u, (codesOf(at, k) >> shift) & 0xffu);
}`;
  const four = /* wgsl */ `
fn entry(at: u32, k: u32, quad: u32, n: u32) -> vec2<u32> {
  return vec2<u32>((words[at / 4u + n * 2u + k / 16u] >> (k % 16u * 2u)) & 3u, bf16At(at + 16u + n * 64u, k));
}`;
  return {
    scaled,
    countScale: (rows) => Math.ceil(rows / 32) * blockBytes,
    code: /* wgsl */ `
${common}
fn SCALES_AT(tile: Tile) -> u32 { return 0u; }
${scaled ? scaleAt : ""}
${bits === 16 ? four : eight}
/** 32 rows of the unit that holds a column. */
fn blockAt(tile: Tile, column: u32, block: u32) -> u32 {
  let data = ${scaled ? "tile.groups * tile.blocks * 64u" : "0u"};
  return tile.start + data + (column / ${unitInputs}u * tile.blocks + block) * ${blockBytes}u;
}
fn codeAt(tile: Tile, column: u32, row: u32) -> u32 {
  let at = blockAt(tile, column, row / 32u);
  for (var n = 0u; n < 2u; n += 1u) {
    let found = entry(at, row % 32u, column % ${unitInputs}u / 4u, n);
    if (found.x == column % 4u) { return found.y; }
  }
  return ${zero}u;
}`,
  };
}

/** The formats that there are kernels for. */
export const sparseAccess: Readonly<Record<string, SparseAccess>> = {
  "bitmask-bf16": bitmask(values.bf16),
  "bitmask-q8": bitmask(values.q8),
  "bitmask-q4": bitmask(values.q4),
  "2:4-bf16": twoOfFour(values.bf16),
  "2:4-q8": twoOfFour(values.q8),
  "2:4-q4": twoOfFour(values.q4),
};

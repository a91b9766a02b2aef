import type { SparseFormatId } from "../../../pack/index.js";
import { kernel, read, readWrite } from "../kernel.js";
import { keepsFunction } from "./keeps.js";
import { rowSums } from "./matvecSums.js";
import { sparseTileRows } from "./sparseAccess.js";
import { sparseMatvecParts, sparseParams } from "./sparseMatvec.js";

/** What suits a device. */
export interface TwoOfFourTuning {
  subgroups32: boolean;
  /** Threads of a workgroup, a power of two, at least 32. */
  threads: number;
  /** Units of a column that a thread reads before it uses the first of them. */
  unroll: number;
}

/** How one value type lies in a unit of inputs and 32 rows, in vectors of 16 bytes; see src/pack/formats/twoOfFour.ts. */
interface UnitLayout {
  /** Inputs of a unit, and vectors of 32 rows of it. */
  readonly inputs: number;
  readonly vectors: number;
  /** Rows of one thread. */
  readonly rows: number;
  /** Vectors that a thread reads, `sub` being its place among the threads of 32 rows. */
  readonly loads: readonly string[];
  /** For every four rows of the thread, in WGSL: what to add, from the loads `v0 …`, with inputs from `at` on. */
  readonly quads: readonly string[];
  readonly scaled: boolean;
}

const pick = (at: string, positions: string) =>
  `vec4<f32>(${["x", "y", "z", "w"].map((c) => `xTile[${at} + (${positions}).${c}]`).join(", ")})`;

const bf16: UnitLayout = {
  inputs: 4,
  vectors: 9,
  rows: 8,
  loads: ["0u", "1u + sub", "5u + sub"],
  quads: [0, 4].map((row) => {
    // Positions of 16 rows a word, first code in words 0 and 1, second in 2 and 3.
    const positions = (n: number) =>
      `((vec4<u32>(select(v0.${"xz"[n]}, v0.${"yw"[n]}, sub >= 2u) >> (sub % 2u * 16u)) >> vec4<u32>(${[0, 1, 2, 3].map((i) => `${2 * (row + i)}u`).join(", ")})) & vec4<u32>(3u))`;
    const code = (v: string) =>
      row === 0 ? `bitcast<vec4<f32>>(${v} << vec4<u32>(16u))` : `bitcast<vec4<f32>>(${v} & vec4<u32>(0xffff0000u))`;
    return [0, 1].map((n) => `${pick("at", positions(n))} * ${code(`v${n + 1}`)}`).join(" + ");
  }),
  scaled: false,
};

/** Codes of `bits` bits in bytes: of a row four, of which two are of inputs 0 to 3 and two of inputs 4 to 7. */
function quantised(bits: 8 | 4): UnitLayout {
  const zero = 2 ** 23 + 2 ** (bits - 1);
  const halves = bits === 8 ? [0] : [0, 1];
  const quad = (half: number, j: number) => {
    const positions = `((v${half} >> vec4<u32>(${2 * j}u)) & vec4<u32>(0x03030303u))`;
    const codes = `(v${halves.length + j} >> vec4<u32>(${4 * half}u))`;
    return [0, 1, 2, 3]
      .map((e) => {
        const shift = `vec4<u32>(${8 * e}u)`;
        const code = `bitcast<vec4<f32>>(((${codes} >> ${shift}) & vec4<u32>(${2 ** bits - 1}u)) | vec4<u32>(0x4b000000u)) - vec4<f32>(${zero}.0)`;
        return `${pick(`at + ${e < 2 ? 0 : 4}u`, `((${positions} >> ${shift}) & vec4<u32>(3u))`)} * (${code})`;
      })
      .join(" + ");
  };
  return {
    inputs: 8,
    vectors: 2 + bits,
    rows: bits === 8 ? 16 : 32,
    loads:
      bits === 8
        ? ["sub", ...[0, 1, 2, 3].map((j) => `2u + sub * 4u + ${j}u`)]
        : [0, 1, 2, 3, 4, 5].map((i) => `${i}u`),
    quads: halves.flatMap((half) => [0, 1, 2, 3].map((j) => quad(half, j))),
    scaled: true,
  };
}

const layouts: Readonly<Record<string, UnitLayout>> = {
  "2:4-bf16": bf16,
  "2:4-q8": quantised(8),
  "2:4-q4": quantised(4),
};

/** Whether the format is one that `twoOfFourMatvec` reads. */
export const isTwoOfFour = (format: SparseFormatId): boolean => Object.hasOwn(layouts, format);

/** Columns of the largest slice of a workgroup. */
export const twoOfFourColumns = 2048;

/**
 * As `sparseMatvec`, for weights of which two in four inputs are not 0. A thread reads whole vectors of 16 bytes: of every
 * unit of 4 or 8 inputs the codes and positions of 8 to 32 rows. Where inputs are masked, a unit without a kept one is not
 * read.
 */
export const twoOfFourMatvec = (format: SparseFormatId, { subgroups32, threads, unroll }: TwoOfFourTuning) => {
  const { inputs, vectors, rows, loads, quads, scaled } = layouts[format];
  const lanes = sparseTileRows / rows;
  const perBlock = 32 / rows;
  const teams = threads / lanes;
  const unitsPerGroup = 32 / inputs;
  const sums = rowSums(
    { tileRows: sparseTileRows, unitRows: rows, rows: quads },
    { threads, subgroups32, joinBySubgroups: true },
  );
  const each = (line: (q: number) => string) => quads.map((_, q) => line(q)).join("\n  ");
  const loadUnit = (k: number, unit: string) =>
    loads.map((v, i) => `let u${k}v${i} = words[data + (${unit}) * unitVectors + ${v}];`).join(" ");
  const addUnit = (k: number, into: string, at: string) =>
    `{ let at = ${at}; ${loads.map((_, i) => `let v${i} = u${k}v${i};`).join(" ")} ${quads.map((q, i) => `${into}${i} += ${q};`).join(" ")} }`;
  /** Adds units `begin, begin + step … < end` of the slice. */
  const addUnits = (into: string, begin: string, step: number, end: string) => /* wgsl */ `
  if (masked) {
    for (var unit = ${begin}; unit < ${end}; unit += ${step}u) {
      var needed = 0u;
      for (var i = 0u; i < ${inputs}u; i += 1u) { needed |= bitcast<u32>(xTile[unit * ${inputs}u + i]) & 0x7fffffffu; }
      if (needed != 0u) {
        ${loadUnit(0, `firstUnit + unit`)}
        ${addUnit(0, into, `unit * ${inputs}u`)}
      }
    }
  } else {
    for (var unit = ${begin}; unit < ${end}; unit += ${step * unroll}u) {
      ${Array.from({ length: unroll }, (_, k) => `let unit${k} = min(unit + ${k * step}u, ${end} - 1u); ${loadUnit(k, `firstUnit + unit${k}`)}`).join("\n      ")}
      ${Array.from({ length: unroll }, (_, k) => {
        const add = addUnit(k, into, `unit${k} * ${inputs}u`);
        return k === 0 ? add : `if (unit + ${k * step}u < ${end}) ${add}`;
      }).join("\n      ")}
    }
  }`;
  const scaleOf = (q: number) => {
    const vector = `scales[${q >> 1}]`;
    return q % 2 === 0
      ? `bitcast<vec4<f32>>(${vector} << vec4<u32>(16u))`
      : `bitcast<vec4<f32>>(${vector} & vec4<u32>(0xffff0000u))`;
  };
  const body = scaled
    ? /* wgsl */ `
  for (var g = team; g < groups; g += ${teams}u) {
    ${each((q) => `var part${q} = vec4<f32>();`)}
    ${addUnits("part", `g * ${unitsPerGroup}u`, 1, `(g * ${unitsPerGroup}u + ${unitsPerGroup}u)`)}
    let scaleAt = start + (firstGroup + g) * blocks * 4u + lane * ${rows / 8}u;
    let scales = array<vec4<u32>, ${rows / 8}>(${Array.from({ length: rows / 8 }, (_, i) => `words[scaleAt + ${i}u]`).join(", ")});
    ${each((q) => `acc${q} = fma(part${q}, ${scaleOf(q)}, acc${q});`)}
  }`
    : addUnits("acc", "team", teams, `(groups * ${unitsPerGroup}u)`);

  return kernel({
    name: `matvec ${format} ${threads} ${unroll} ${subgroups32}`,
    ...(subgroups32 ? { enable: ["subgroups"] } : {}),
    params: sparseParams,
    tableLength: sparseMatvecParts,
    buffers: {
      sums: readWrite(),
      xs: read(),
      words: read("vec4<u32>"),
      places: read("vec4<u32>"),
      counters: readWrite("atomic<u32>"),
    },
    code: /* wgsl */ `${keepsFunction}
const TILE_ROWS = ${sparseTileRows}u;
const UNIT_ROWS = ${rows}u;
const LANES = ${lanes}u;
var<workgroup> xTile: array<f32, ${twoOfFourColumns}>;
var<workgroup> pool: array<vec2<u32>, ${sums.poolLength}>;
${sums.functions}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let index = p.firstTile + workgroup.x;
  let spot = places[2u * index];
  let info = p.table[spot.w - p.firstPart];
  let threshold = bitcast<f32>(info.x);
  let masked = info.y != 0u;
  let blocks = (spot.y + 31u) / 32u;
  let allGroups = (p.cols + 31u) / 32u;
  let firstGroup = workgroup.y * p.groupsPerSlice;
  let groups = min(p.groupsPerSlice, allGroups - firstGroup);
  for (var i = t; i < groups * 32u; i += ${threads}u) {
    let c = firstGroup * 32u + i;
    let x = select(0.0, xs[p.xOffset + min(c, p.cols - 1u)], c < p.cols);
    xTile[i] = select(x, 0.0, masked && !keeps(x, threshold));
  }
  workgroupBarrier();
  // What is read of the inputs is told by the first tile of a part; of the weights units, which are as many in every tile.
  if (masked && (index == 0u || places[2u * index - 2u].w != spot.w)) {
    for (var g = t; g < groups; g += ${threads}u) {
      var kept = 0u;
      var data = 0u;
      for (var unit = 0u; unit < ${unitsPerGroup}u; unit += 1u) {
        var here = 0u;
        for (var i = 0u; i < ${inputs}u; i += 1u) { here += select(0u, 1u, xTile[g * 32u + unit * ${inputs}u + i] != 0.0); }
        kept += here;
        data += min(here, 1u);
      }
      atomicAdd(&counters[info.z], kept);
      atomicAdd(&counters[info.z + 1u], min(kept, 1u));
      atomicAdd(&counters[info.w], data);
    }
  }

  let start = spot.x / 4u;
  // Rows beyond the last 32 of the tile: those again, for nobody.
  let lane = min(t % LANES, blocks * ${perBlock}u - 1u);
  let sub = lane % ${perBlock}u;
  let team = t / LANES;
  let unitVectors = blocks * ${vectors}u;
  let data = start + ${scaled ? "allGroups * blocks * 4u + " : ""}lane / ${perBlock}u * ${vectors}u;
  let firstUnit = firstGroup * ${unitsPerGroup}u;
  ${each((q) => `var acc${q} = vec4<f32>();`)}
  ${body}
  ${sums.store}
  for (var pair = t; pair < TILE_ROWS / 2u; pair += ${threads}u) {
    let total = totalOf(pair);
    let row = rowOf(pair);
    for (var i = 0u; i < 2u; i += 1u) {
      if (row + i < spot.y) { sums[workgroup.y * p.sumsStride + spot.z + row + i] = total[i]; }
    }
  }
}`,
  });
};

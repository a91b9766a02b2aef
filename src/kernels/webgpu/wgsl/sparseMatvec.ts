import type { SparseFormatId } from "../../../pack/index.js";
import { kernel, read, readWrite } from "../kernel.js";
import { keepsFunction } from "./keeps.js";
import { sparseAccess, sparseTileRows } from "./sparseAccess.js";

/** Parts of a stack that one dispatch takes. */
export const sparseMatvecParts = 6;

/** What every product of one row with a matrix that leaves zeros out is given. */
export const sparseParams = {
  xOffset: "u32",
  cols: "u32",
  groupsPerSlice: "u32",
  firstTile: "u32",
  firstPart: "u32",
  sumsStride: "u32",
} as const;

/** Groups of 32 columns of the largest slice of a workgroup. */
export const sliceGroups = 32;

/** Groups of 32 threads, each with columns of its own. */
const teams = 4;
const threads = 32 * teams;

/**
 * sums[slice] = x·Wᵀ over one slice of the columns, for one row of x and a matrix with a bit mask. A workgroup owns one
 * tile of 128 rows; each team of 32 threads takes groups of 32 columns in turn, a thread the rows t, t + 32, t + 64, t + 96.
 * Inputs at or below the part's threshold are skipped with all their weights. `joinSlices` adds the slices.
 *
 * Table, per part from `firstPart` on: (threshold bits, whether masked, first counter, first counter of bytes).
 */
export const sparseMatvec = (format: SparseFormatId) => {
  const { scaled, code } = sparseAccess[format];
  return kernel({
    name: `matvec ${format}`,
    params: sparseParams,
    tableLength: sparseMatvecParts,
    buffers: {
      sums: readWrite(),
      xs: read(),
      words: read("u32"),
      places: read("vec4<u32>"),
      counters: readWrite("atomic<u32>"),
    },
    code: /* wgsl */ `${keepsFunction}
var<workgroup> xTile: array<f32, ${32 * sliceGroups}>;
var<workgroup> pool: array<f32, ${teams * sparseTileRows}>;
${code}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let index = p.firstTile + workgroup.x;
  let place = places[2u * index];
  let tile = tileOf(place, p.cols);
  let info = p.table[place.w - p.firstPart];
  let threshold = bitcast<f32>(info.x);
  let masked = info.y != 0u;
  let firstGroup = workgroup.y * p.groupsPerSlice;
  let groups = min(p.groupsPerSlice, tile.groups - firstGroup);
  for (var i = t; i < groups * 32u; i += ${threads}u) {
    let c = firstGroup * 32u + i;
    let x = select(0.0, xs[p.xOffset + min(c, p.cols - 1u)], c < p.cols);
    xTile[i] = select(x, 0.0, masked && !keeps(x, threshold));
  }
  workgroupBarrier();
  // What is read of the inputs is told by the first tile of a part, what is read of the weights by every tile.
  if (masked && t < groups) {
    var kept = 0u;
    var data = 0u;
    for (var c = 0u; c < 32u; c += 1u) {
      if (xTile[t * 32u + c] == 0.0) { continue; }
      kept += 1u;
      data += dataOf(tile, (firstGroup + t) * 32u + c);
    }
    let isFirst = index == 0u || places[2u * index - 2u].w != place.w;
    if (isFirst) {
      atomicAdd(&counters[info.z], kept);
      atomicAdd(&counters[info.z + 1u], min(kept, 1u));
    }
    atomicAdd(&counters[info.w], data);
  }

  let lane = t % 32u;
  var total = array<f32, 4>();
  for (var g = t / 32u; g < groups; g += ${teams}u) {
    ${
      scaled
        ? /* wgsl */ `
    var group = array<f32, 4>();
    addGroup(tile, firstGroup + g, g * 32u, lane, &group);
    for (var b = 0u; b < tile.blocks; b += 1u) {
      total[b] = fma(group[b], scaleAt(tile, firstGroup + g, b * 32u + lane), total[b]);
    }`
        : "addGroup(tile, firstGroup + g, g * 32u, lane, &total);"
    }
  }
  for (var b = 0u; b < 4u; b += 1u) { pool[t / 32u * ${sparseTileRows}u + b * 32u + lane] = total[b]; }
  workgroupBarrier();
  for (var row = t; row < place.y; row += ${threads}u) {
    var sum = 0.0;
    for (var team = 0u; team < ${teams}u; team += 1u) { sum += pool[team * ${sparseTileRows}u + row]; }
    sums[workgroup.y * p.sumsStride + place.z + row] = sum;
  }
}`,
  });
};

export const joinThreads = 64;

/** out = sum of the slices (+ bias) (+ out). */
export const joinSlices = kernel({
  name: "joinSlices",
  params: { cols: "u32", slices: "u32", outOffset: "u32", hasBias: "u32", accumulate: "u32" },
  buffers: { outs: readWrite(), sums: read(), bias: read() },
  code: /* wgsl */ `
@compute @workgroup_size(${joinThreads})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= p.cols) { return; }
  var total = 0.0;
  for (var s = 0u; s < p.slices; s += 1u) { total += sums[s * p.cols + id.x]; }
  if (p.hasBias != 0u) { total += bias[id.x]; }
  if (p.accumulate != 0u) { total += outs[p.outOffset + id.x]; }
  outs[p.outOffset + id.x] = total;
}`,
});

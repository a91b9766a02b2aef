import { type GpuFormat, scaleRows, tileFunctions } from "../formats.js";
import { kernel, read, readWrite } from "../kernel.js";
import { findPart } from "./part.js";

/** Parts of a stack that one dispatch of `matmul` takes, two vec4<u32> each. */
export const matmulParts = 5;

/** What kernels of products of many rows are given. */
export const matmulInterface = {
  params: {
    xOffset: "u32",
    xStride: "u32",
    xRows: "u32",
    cols: "u32",
    groups: "u32",
    parts: "u32",
    outOffset: "u32",
    outStride: "u32",
    hasBias: "u32",
    accumulate: "u32",
    sparseFromRow: "u32",
  },
  tableLength: 2 * matmulParts,
  buffers: { outs: readWrite(), xs: read(), units: read("vec4<u32>"), bias: read() },
} as const;

/** Rows of W in the block of one workgroup. Every row tile is a multiple of it, or the last of its part. */
export const blockRows = 64;

/** Block rows in fours, and one more to spread the columns over the memory banks. */
const stride = blockRows / 4 + 1;

/**
 * out = x·Wᵀ (+ bias) (+ out) for many rows of x. A workgroup owns 64 rows of W × `tokens` rows of x (a multiple of 4) and
 * walks the columns in groups of 32, through workgroup memory; each thread owns 4 × 4 outputs. Rows of x from
 * `sparseFromRow` on see 0 where |x| ≤ the part's threshold.
 *
 * Table, per part: (first workgroup, first unit, rows, first output column), (first tile, threshold bits, masked, –).
 */
export const matmul = (format: GpuFormat, tokens: number) => {
  const threads = (blockRows / 4) * (tokens / 4);
  const xStride = tokens / 4 + 1;
  const { unitRows, rows, scaled } = format;
  const unitsPerColumn = blockRows / unitRows;
  const scales = scaleRows(format);
  const value = (i: number) => (scaled ? `${rows[i]} * ${scales[i]}` : rows[i]);
  return kernel({
    name: `matmul ${format.format.id} ${tokens}`,
    ...matmulInterface,
    code: /* wgsl */ `
${tileFunctions(format)}
var<workgroup> xTile: array<vec4<f32>, ${32 * xStride}>;
var<workgroup> wTile: array<vec4<f32>, ${32 * stride}>;

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  ${findPart}
  let block = workgroup.x - place0.x;
  let tileInChunk = block * ${blockRows}u / TILE_ROWS;
  let tile = place1.x + tileInChunk;
  let base = place0.y + tileInChunk * tileUnits(p.groups);
  let width = tileWidth(place0.z, tile);
  let firstRow = block * ${blockRows}u % TILE_ROWS;
  let firstToken = workgroup.y * ${tokens}u;
  let threshold = bitcast<f32>(place1.y);
  let masked = place1.z != 0u;

  let tx = t % 16u;
  let ty = t / 16u;
  var acc0 = vec4<f32>();
  var acc1 = vec4<f32>();
  var acc2 = vec4<f32>();
  var acc3 = vec4<f32>();
  for (var g = 0u; g < p.groups; g += 1u) {
    for (var i = t; i < ${8 * tokens}u; i += ${threads}u) {
      let c = g * 32u + i % 32u;
      let quad = i / 32u;
      var v = vec4<f32>();
      for (var k = 0u; k < 4u; k += 1u) {
        let token = firstToken + quad * 4u + k;
        if (token < p.xRows && c < p.cols) {
          let x = xs[p.xOffset + token * p.xStride + c];
          v[k] = select(x, 0.0, masked && token >= p.sparseFromRow && abs(x) <= threshold);
        }
      }
      xTile[i % 32u * ${xStride}u + quad] = v;
    }
    for (var i = t; i < ${32 * unitsPerColumn}u; i += ${threads}u) {
      let c = i / ${unitsPerColumn}u;
      let lane = min(firstRow / UNIT_ROWS + i % ${unitsPerColumn}u, width - 1u);
      let u = units[base + columnUnit(width, g, c) + lane];
      ${
        scaled
          ? scales
              .filter((_, k) => k % 2 === 0)
              .map((_, k) => `let s${k} = units[base + g * groupUnits(width) + lane * ${unitRows / 8}u + ${k}u];`)
              .join("\n      ")
          : ""
      }
      let at = c * ${stride}u + i % ${unitsPerColumn}u * ${rows.length}u;
      ${rows.map((_, k) => `wTile[at + ${k}u] = ${value(k)};`).join("\n      ")}
    }
    workgroupBarrier();
    for (var c = 0u; c < 32u; c += 1u) {
      let w = wTile[c * ${stride}u + tx];
      let x = xTile[c * ${xStride}u + ty];
      acc0 = fma(vec4<f32>(x.x), w, acc0);
      acc1 = fma(vec4<f32>(x.y), w, acc1);
      acc2 = fma(vec4<f32>(x.z), w, acc2);
      acc3 = fma(vec4<f32>(x.w), w, acc3);
    }
    workgroupBarrier();
  }

  let row = tile * TILE_ROWS + firstRow + tx * 4u;
  var acc = array<vec4<f32>, 4>(acc0, acc1, acc2, acc3);
  for (var i = 0u; i < 4u; i += 1u) {
    let token = firstToken + ty * 4u + i;
    if (token >= p.xRows) { continue; }
    for (var k = 0u; k < 4u; k += 1u) {
      if (row + k >= place0.z) { continue; }
      let column = place0.w + row + k;
      let at = p.outOffset + token * p.outStride + column;
      var total = acc[i][k];
      if (p.hasBias != 0u) { total += bias[column]; }
      if (p.accumulate != 0u) { total += outs[at]; }
      outs[at] = total;
    }
  }
}`,
  });
};

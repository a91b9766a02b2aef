import { type GpuFormat, scaleRows, tileFunctions } from "../formats.js";
import { kernel, read, readWrite } from "../kernel.js";
import { keepsFunction } from "./keeps.js";
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
    /** Where the columns are cut into slices. */
    stepsOfSlice: "u32",
    sliceStride: "u32",
    /** Whether the outputs begin at, and are apart by, multiples of 16 bytes, and none has a bias. */
    aligned: "u32",
  },
  tableLength: 2 * matmulParts,
  buffers: { outs: readWrite(), xs: read(), units: read("vec4<u32>"), bias: read() },
} as const;

/** Columns that a workgroup holds at once: half a group. */
const depth = 16;

/** Threads side by side; each owns rows of W in fours, 64 rows apart. */
const across = 16;

/** How the outputs of a workgroup are shared out. */
export interface MatmulShape {
  /** Rows of x, a multiple of `tokensPerThread`. */
  tokens: number;
  /** Rows of W: 64 or 128, and no more than a row tile. Every row tile is a multiple of it, or the last of its part. */
  blockRows: number;
  tokensPerThread: number;
}

/**
 * out = x·Wᵀ (+ bias) (+ out) for many rows of x. A workgroup owns `blockRows` rows of W × `tokens` rows of x and walks the
 * columns through workgroup memory, `depth` at a time; while those are multiplied, the next are read. Rows of x from
 * `sparseFromRow` on see 0 where |x| ≤ the part's threshold.
 *
 * Table, per part: (first workgroup, first unit, rows, first output column), (first tile, threshold bits, masked, –).
 */
export const matmul = (format: GpuFormat, { tokens, blockRows, tokensPerThread }: MatmulShape) => {
  const threads = across * (tokens / tokensPerThread);
  const quads = blockRows / 4 / across;
  // One more, so that neighbouring columns lie in other banks.
  const [xPitch, wPitch] = [tokens + 4, blockRows / 4 + 1];
  const { unitRows, rows, scaled } = format;
  const lanes = blockRows / unitRows;
  const scales = scaleRows(format);
  const value = (i: number) => (scaled ? `${rows[i]} * ${scales[i]}` : rows[i]);
  const times = (count: number, line: (i: number) => string) =>
    Array.from({ length: count }, (_, i) => line(i)).join("\n    ");
  // What one thread reads for a step: numbers of x, units of W and their scales.
  const xLoads = (tokens * depth) / threads;
  const wLoads = Math.ceil((lanes * depth) / threads);
  const spare = lanes * depth < threads;
  const scaleUnits = scaled ? unitRows / 8 : 0;
  const column = (i: number) => `(t / ${lanes}u + ${(i * threads) / lanes}u)`;
  const loads = (step: string) => /* wgsl */ `
    ${times(xLoads, (i) => `x${i} = xs[p.xOffset + min(firstToken + t / ${depth}u + ${(i * threads) / depth}u, p.xRows - 1u) * p.xStride + min(${step} * ${depth}u + t % ${depth}u, p.cols - 1u)];`)}
    {
      let g = ${step} / 2u;
      let column = ${step} % 2u * ${depth}u;
      ${times(wLoads, (i) => `u${i} = units[base + columnUnit(width, g, column + ${spare ? `min(t / ${lanes}u, ${depth - 1}u)` : column(i)}) + lane];`)}
      ${times(scaleUnits, (i) => `s${i} = units[base + g * groupUnits(width) + lane * ${unitRows / 8}u + ${i}u];`)}
    }`;
  return kernel({
    name: `matmul ${format.format.id} ${tokens}`,
    ...matmulInterface,
    code: /* wgsl */ `${keepsFunction}
${tileFunctions(format)}
var<workgroup> xTile: array<f32, ${depth * xPitch}>;
var<workgroup> wTile: array<vec4<f32>, ${depth * wPitch}>;

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

  let tx = t % ${across}u;
  let ty = t / ${across}u;
  let lane = min(firstRow / UNIT_ROWS + t % ${lanes}u, width - 1u);
  ${times(tokensPerThread * quads, (i) => `var acc${i} = vec4<f32>();`)}
  ${times(xLoads, (i) => `var x${i} = 0.0;`)}
  ${times(wLoads, (i) => `var u${i} = vec4<u32>();`)}
  ${times(scaleUnits, (i) => `var s${i} = vec4<u32>();`)}
  ${loads("0u")}
  let steps = p.groups * 2u;
  for (var step = 0u; step < steps; step += 1u) {
    ${times(
      xLoads,
      (i) => `{
      let row = t / ${depth}u + ${(i * threads) / depth}u;
      // & and not &&: a branch in every copy of these lines takes some compilers minutes.
      let inside = (step * ${depth}u + t % ${depth}u < p.cols) & (firstToken + row < p.xRows);
      let dropped = masked & (firstToken + row >= p.sparseFromRow) & !keeps(x${i}, threshold);
      xTile[t % ${depth}u * ${xPitch}u + row] = select(0.0, x${i}, inside & !dropped);
    }`,
    )}
    ${times(
      wLoads,
      (i) => `${spare ? `if (t < ${lanes * depth}u) ` : ""}{
      let u = u${i};
      let at = ${column(i)} * ${wPitch}u + t % ${lanes}u * ${rows.length}u;
      ${times(rows.length, (r) => `wTile[at + ${r}u] = ${value(r)};`)}
    }`,
    )}
    workgroupBarrier();
    let next = min(step + 1u, steps - 1u);
    ${loads("next")}
    for (var c = 0u; c < ${depth}u; c += 1u) {
      ${times(quads, (q) => `let w${q} = wTile[c * ${wPitch}u + ${q * across}u + tx];`)}
      ${times(tokensPerThread, (i) => `{ let x = vec4<f32>(xTile[c * ${xPitch}u + ty * ${tokensPerThread}u + ${i}u]); ${Array.from({ length: quads }, (_, q) => `acc${i * quads + q} = fma(x, w${q}, acc${i * quads + q});`).join(" ")} }`)}
    }
    workgroupBarrier();
  }

  let tileRow = tile * TILE_ROWS + firstRow;
  ${times(tokensPerThread * quads, (i) => `put(place0, firstToken + ty * ${tokensPerThread}u + ${Math.floor(i / quads)}u, tileRow + ${(i % quads) * 4 * across}u + tx * 4u, acc${i});`)}
}

/** Four sums of one row of x, for rows of W from \`row\` on. */
fn put(place: vec4<u32>, token: u32, row: u32, sums: vec4<f32>) {
  if (token >= p.xRows) { return; }
  for (var k = 0u; k < 4u; k += 1u) {
    if (row + k >= place.z) { return; }
    let column = place.w + row + k;
    let at = p.outOffset + token * p.outStride + column;
    var total = sums[k];
    if (p.hasBias != 0u) { total += bias[column]; }
    if (p.accumulate != 0u) { total += outs[at]; }
    outs[at] = total;
  }
}`,
  });
};

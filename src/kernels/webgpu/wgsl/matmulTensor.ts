import { type GpuFormat, scaleRows, tileFunctions } from "../formats.js";
import { kernel, read } from "../kernel.js";
import { keepsFunction } from "./keeps.js";
import { matmulInterface } from "./matmul.js";
import { findPart } from "./part.js";

/** Columns, rows and depth of the products that an adapter's matrix units make of f16, summed in f32. */
export interface TensorShape {
  M: number;
  N: number;
  K: number;
}

/** Rows of x that a workgroup takes. */
export const tensorTokens = 64;

/** Subgroups of a workgroup: so many share its rows of x, so many its rows of W. */
const teamsDown = 2;
const teamsAcross = 2;
const teams = teamsDown * teamsAcross;
const threads = teams * 32;
const teamTokens = tensorTokens / teamsDown;

/** Distances between rows in workgroup memory, in f16: not multiples of the banks. */
const xPitch = 32 + 8;
const wPitch = (tileRows: number) => tileRows + 8;

/** x is multiplied with 1/16 before it becomes f16, so that up to a million it does not overflow, and sums with 16. */
const range = 16;

/** Bytes of workgroup memory that a kernel takes. */
export const matmulTensorBytes = ({ tileRows }: GpuFormat, { M, N }: TensorShape): number =>
  2 * (tensorTokens * xPitch + 32 * wPitch(tileRows)) + 4 * teams * M * N;

/**
 * `matmul` on the matrix units of a GPU, which multiply f16: a workgroup owns one row tile of W × 64 rows of x. x is rounded to
 * f16; a bf16 weight is an f16 number but where it is tiny, and a code times its scale is rounded by 2⁻¹² of itself, far less
 * than the code was.
 *
 * x is read in fours, so its buffer must not be that of `outs`, and its offset and stride must be multiples of 4.
 */
export const matmulTensor = (format: GpuFormat, { M, N, K }: TensorShape) => {
  const { unitRows, tileRows, rows, scaled } = format;
  const lanes = tileRows / unitRows;
  const teamRows = tileRows / teamsAcross;
  const scales = scaleRows(format);
  const stride = wPitch(tileRows);
  const value = (i: number) => (scaled ? `${rows[i]} * ${scales[i]}` : rows[i]);
  const times = (count: number, line: (i: number) => string) =>
    Array.from({ length: count }, (_, i) => line(i)).join("\n    ");
  const [down, across] = [teamTokens / M, teamRows / N];
  // What one thread reads for a step: eights of x, units of W and, for its rows, their scales.
  const xLoads = (tensorTokens * 4) / threads;
  const wLoads = (32 * lanes) / threads;
  const scaleUnits = scaled ? unitRows / 8 : 0;
  const xRow = (i: number) => `(t / 4u + ${(i * threads) / 4}u)`;
  const loads = (group: string) => /* wgsl */ `
    ${times(xLoads, (i) => `x${i} = eight(firstToken + ${xRow(i)}, ${group} * 8u + t % 4u * 2u);`)}
    ${times(wLoads, (i) => `u${i} = units[base + columnUnit(width, ${group}, t / ${lanes}u + ${(i * threads) / lanes}u) + lane];`)}
    ${times(scaleUnits, (i) => `s${i} = units[base + ${group} * groupUnits(width) + lane * ${unitRows / 8}u + ${i}u];`)}`;
  const store = (array: string, at: string, from: string) =>
    `{ let four = vec4<f16>(${from}); ${[0, 1, 2, 3].map((k) => `${array}[${at} + ${k}u] = four[${k}];`).join(" ")} }`;
  return kernel({
    name: `matmul ${format.format.id} on ${M}×${N}×${K}`,
    enable: ["f16", "subgroups", "chromium_experimental_subgroup_matrix"],
    // That `team` is the same for a whole subgroup is more than the compiler can see.
    unchecked: ["chromium.subgroup_matrix_uniformity"],
    ...matmulInterface,
    buffers: { ...matmulInterface.buffers, xs: read("vec4<f32>") },
    code: /* wgsl */ `${keepsFunction}
${tileFunctions(format)}
var<workgroup> xTile: array<f16, ${tensorTokens * xPitch}>;
var<workgroup> wTile: array<f16, ${32 * stride}>;
var<workgroup> results: array<f32, ${teams * M * N}>;

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  ${findPart}
  let tileInChunk = workgroup.x - place0.x;
  let tile = place1.x + tileInChunk;
  let base = place0.y + tileInChunk * tileUnits(p.groups);
  let width = tileWidth(place0.z, tile);
  let firstToken = workgroup.y * ${tensorTokens}u;
  let threshold = bitcast<f32>(place1.y);
  let masked = place1.z != 0u;
  let team = t / 32u;
  let firstOwn = team % ${teamsDown}u * ${teamTokens}u;
  let firstRow = team / ${teamsDown}u * ${teamRows}u;

  let lane = min(t % ${lanes}u, width - 1u);
  ${times(down * across, (a) => `var acc${a} = subgroup_matrix_result<f32, ${N}, ${M}>();`)}
  ${times(xLoads, (i) => `var x${i} = array<vec4<f32>, 2>();`)}
  ${times(wLoads, (i) => `var u${i} = vec4<u32>();`)}
  ${times(scaleUnits, (i) => `var s${i} = vec4<u32>();`)}
  ${loads("0u")}
  for (var g = 0u; g < p.groups; g += 1u) {
    ${times(
      xLoads,
      (i) => `{
      let at = ${xRow(i)} * ${xPitch}u + t % 4u * 8u;
      let token = firstToken + ${xRow(i)};
      let column = g * 32u + t % 4u * 8u;
      let dropUpTo = select(-1.0, threshold, masked & (token >= p.sparseFromRow));
      ${[0, 1].map((half) => store("xTile", `at + ${4 * half}u`, `kept(x${i}[${half}], dropUpTo, (token < p.xRows) & (column + ${4 * half}u < p.cols))`)).join("\n      ")}
    }`,
    )}
    ${times(
      wLoads,
      (i) => `{
      let u = u${i};
      let at = (t / ${lanes}u + ${(i * threads) / lanes}u) * ${stride}u + t % ${lanes}u * ${unitRows}u;
      ${times(rows.length, (r) => store("wTile", `at + ${4 * r}u`, value(r)))}
    }`,
    )}
    workgroupBarrier();
    // The next step is read while this one is multiplied.
    let next = min(g + 1u, p.groups - 1u);
    ${loads("next")}
    ${times(32 / K, (k) =>
      [
        times(
          down,
          (i) =>
            `let left${k}_${i} = subgroupMatrixLoad<subgroup_matrix_left<f16, ${K}, ${M}>, row_major>(&xTile, (firstOwn + ${i * M}u) * ${xPitch}u + ${k * K}u, ${xPitch}u);`,
        ),
        times(
          across,
          (j) =>
            `let right${k}_${j} = subgroupMatrixLoad<subgroup_matrix_right<f16, ${N}, ${K}>, row_major>(&wTile, ${k * K * stride}u + firstRow + ${j * N}u, ${stride}u);`,
        ),
        times(
          down * across,
          (a) =>
            `acc${a} = subgroupMatrixMultiplyAccumulate(left${k}_${Math.floor(a / across)}, right${k}_${a % across}, acc${a});`,
        ),
      ].join("\n    "),
    )}
    workgroupBarrier();
  }

  ${times(
    down * across,
    (a) => `
  subgroupMatrixStore<row_major>(&results, team * ${M * N}u, acc${a}, ${N}u);
  workgroupBarrier();
  for (var e = t % 32u; e < ${M * N}u; e += 32u) {
    put(place0, tile, firstToken + firstOwn + ${Math.floor(a / across) * M}u + e / ${N}u, firstRow + ${(a % across) * N}u + e % ${N}u, results[team * ${M * N}u + e]);
  }
  workgroupBarrier();`,
  )}
}

/** Eight numbers of a row of x; \`quad\` counts fours. What lies beyond x is some other number of it. */
fn eight(token: u32, quad: u32) -> array<vec4<f32>, 2> {
  let start = (p.xOffset + min(token, p.xRows - 1u) * p.xStride) / 4u;
  let last = p.cols / 4u - 1u;
  return array<vec4<f32>, 2>(xs[start + min(quad, last)], xs[start + min(quad + 1u, last)]);
}

fn keepsEach(x: vec4<f32>, t: f32) -> vec4<bool> {
  return vec4<bool>(keeps(x.x, t), keeps(x.y, t), keeps(x.z, t), keeps(x.w, t));
}

fn kept(x: vec4<f32>, dropUpTo: f32, inside: bool) -> vec4<f32> {
  return select(vec4<f32>(), x * ${1 / range}, vec4<bool>(inside) & keepsEach(x, dropUpTo));
}

fn put(place: vec4<u32>, tile: u32, token: u32, rowInTile: u32, sum: f32) {
  let row = tile * TILE_ROWS + rowInTile;
  if (token >= p.xRows || row >= place.z) { return; }
  let at = p.outOffset + token * p.outStride + place.w + row;
  var total = sum * ${range}.0;
  if (p.hasBias != 0u) { total += bias[place.w + row]; }
  if (p.accumulate != 0u) { total += outs[at]; }
  outs[at] = total;
}`,
  });
};

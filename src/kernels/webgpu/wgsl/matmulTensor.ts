import { type GpuFormat, scaleRows, tileFunctions } from "../formats.js";
import { kernel } from "../kernel.js";
import { matmulInterface } from "./matmul.js";
import { findPart } from "./part.js";

/** Columns, rows and depth of the products that an adapter's matrix units make of f16, summed in f32. */
export interface TensorShape {
  M: number;
  N: number;
  K: number;
}

/** Subgroups of 32 threads in a workgroup. */
const teams = 8;
const threads = teams * 32;
/** Rows of x that one subgroup takes. */
const teamTokens = 32;

/** Distances between rows in workgroup memory, in f16: not multiples of the banks. */
const xPitch = 32 + 8;
const wPitch = (blockRows: number) => blockRows + 8;

/** Bytes of workgroup memory that a kernel takes. */
export const matmulTensorBytes = ({ tileRows }: GpuFormat, tokens: number, { M, N }: TensorShape): number =>
  2 * (2 * tokens * xPitch + 32 * wPitch(tileRows)) + 4 * teams * M * N;

/**
 * `matmul` on the matrix units of a GPU, which multiply f16: a workgroup owns one row tile of W × `tokens` rows of x. x
 * travels as the sum of two f16 numbers, so that its f32 values lose next to nothing; a bf16 weight is an f16 number but where
 * it is tiny, and a code times its scale is rounded by 2⁻¹² of itself, far less than the code was.
 */
export const matmulTensor = (format: GpuFormat, tokens: number, { M, N, K }: TensorShape) => {
  const { unitRows, tileRows, rows, scaled } = format;
  const lanes = tileRows / unitRows;
  const tokenTeams = tokens / teamTokens;
  const teamRows = tileRows / (teams / tokenTeams);
  const scales = scaleRows(format);
  const stride = wPitch(tileRows);
  const value = (i: number) => (scaled ? `${rows[i]} * ${scales[i]}` : rows[i]);
  const each = (count: number, line: (i: number) => string) =>
    Array.from({ length: count }, (_, i) => line(i)).join("\n      ");
  const [down, across] = [teamTokens / M, teamRows / N];
  const left = (from: string, i: number, k: number) =>
    `subgroupMatrixLoad<subgroup_matrix_left<f16, ${K}, ${M}>, row_major>(&${from}, (firstOwn + ${i * M}u) * ${xPitch}u + ${k}u, ${xPitch}u)`;
  // What one thread reads for a step: numbers of x, units of W and, for its rows, their scales.
  const xLoads = (tokens * 32) / threads;
  const wLoads = Math.ceil((32 * lanes) / threads);
  // Where a step has fewer units than there are threads, the rest read the last column and keep it to themselves.
  const spare = 32 * lanes < threads;
  const scaleUnits = scaled ? unitRows / 8 : 0;
  const declared = [
    ...Array.from({ length: xLoads }, (_, i) => `var x${i} = 0.0;`),
    ...Array.from({ length: wLoads }, (_, i) => `var u${i} = vec4<u32>();`),
    ...Array.from({ length: scaleUnits }, (_, i) => `var s${i} = vec4<u32>();`),
  ].join(" ");
  const loads = (group: string) =>
    [
      each(
        xLoads,
        (i) =>
          `x${i} = xs[p.xOffset + min(firstToken + ${i * teams}u + team, p.xRows - 1u) * p.xStride + min(${group} * 32u + t % 32u, p.cols - 1u)];`,
      ),
      each(
        wLoads,
        (i) =>
          `u${i} = units[base + columnUnit(width, ${group}, ${spare ? `min(t / ${lanes}u, 31u)` : `t / ${lanes}u + ${(i * threads) / lanes}u`}) + lane];`,
      ),
      each(scaleUnits, (i) => `s${i} = units[base + ${group} * groupUnits(width) + lane * ${unitRows / 8}u + ${i}u];`),
    ].join("\n      ");
  return kernel({
    name: `matmul ${format.format.id} ${tokens} on ${M}×${N}×${K}`,
    enable: ["f16", "subgroups", "chromium_experimental_subgroup_matrix"],
    // That `team` is the same for a whole subgroup is more than the compiler can see.
    unchecked: ["chromium.subgroup_matrix_uniformity"],
    ...matmulInterface,
    code: /* wgsl */ `
${tileFunctions(format)}
const LARGEST = 65504.0;
var<workgroup> xHigh: array<f16, ${tokens * xPitch}>;
var<workgroup> xLow: array<f16, ${tokens * xPitch}>;
var<workgroup> wTile: array<f16, ${32 * stride}>;
var<workgroup> results: array<f32, ${teams * M * N}>;

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  ${findPart}
  let tileInChunk = workgroup.x - place0.x;
  let tile = place1.x + tileInChunk;
  let base = place0.y + tileInChunk * tileUnits(p.groups);
  let width = tileWidth(place0.z, tile);
  let firstToken = workgroup.y * ${tokens}u;
  let threshold = bitcast<f32>(place1.y);
  let masked = place1.z != 0u;
  let team = t / 32u;
  let firstOwn = team % ${tokenTeams}u * ${teamTokens}u;
  let firstRow = team / ${tokenTeams}u * ${teamRows}u;

  let lane = min(t % ${lanes}u, width - 1u);
  ${declared}
  ${each(down * across, (a) => `var acc${a} = subgroup_matrix_result<f32, ${N}, ${M}>();`)}
  ${loads("0u")}
  for (var g = 0u; g < p.groups; g += 1u) {
    ${each(
      xLoads,
      (i) => `
    {
      let token = firstToken + ${i * teams}u + team;
      let kept = token < p.xRows && g * 32u + t % 32u < p.cols && !(masked && token >= p.sparseFromRow && abs(x${i}) <= threshold);
      let x = select(0.0, x${i}, kept);
      // Cut by its bits: a compiler may take the difference of a number and its rounded self for 0.
      let high = bitcast<f32>(bitcast<u32>(clamp(x, -LARGEST, LARGEST)) & 0xffffe000u);
      let at = (${i * teams}u + team) * ${xPitch}u + t % 32u;
      xHigh[at] = f16(high);
      xLow[at] = f16(clamp(x - high, -LARGEST, LARGEST));
    }`,
    )}
    ${each(
      wLoads,
      (i) => `
    ${spare ? `if (t < ${32 * lanes}u)` : ""} {
      let u = u${i};
      let at = (t / ${lanes}u + ${(i * threads) / lanes}u) * ${stride}u + t % ${lanes}u * ${unitRows}u;
      ${each(
        rows.length,
        (r) =>
          `{ let w = vec4<f16>(clamp(${value(r)}, vec4<f32>(-LARGEST), vec4<f32>(LARGEST))); ${[0, 1, 2, 3].map((k) => `wTile[at + ${4 * r + k}u] = w[${k}];`).join(" ")} }`,
      )}
    }`,
    )}
    workgroupBarrier();
    // The next step is read while this one is multiplied.
    let next = min(g + 1u, p.groups - 1u);
    ${loads("next")}
    ${each(32 / K, (k) =>
      [
        each(
          down,
          (i) => `let high${k}_${i} = ${left("xHigh", i, k * K)}; let low${k}_${i} = ${left("xLow", i, k * K)};`,
        ),
        each(
          across,
          (j) =>
            `let right${k}_${j} = subgroupMatrixLoad<subgroup_matrix_right<f16, ${N}, ${K}>, row_major>(&wTile, ${k * K * stride}u + firstRow + ${j * N}u, ${stride}u);`,
        ),
        each(down * across, (a) => {
          const [i, j] = [Math.floor(a / across), a % across];
          const multiply = (x: string) =>
            `acc${a} = subgroupMatrixMultiplyAccumulate(${x}${k}_${i}, right${k}_${j}, acc${a});`;
          return `${multiply("low")} ${multiply("high")}`;
        }),
      ].join("\n      "),
    )}
    workgroupBarrier();
  }

  ${each(down * across, (a) => {
    const [i, j] = [Math.floor(a / across), a % across];
    return `
  subgroupMatrixStore<row_major>(&results, team * ${M * N}u, acc${a}, ${N}u);
  workgroupBarrier();
  for (var e = t % 32u; e < ${M * N}u; e += 32u) {
    put(place0, tile, firstToken + firstOwn + ${i * M}u + e / ${N}u, firstRow + ${j * N}u + e % ${N}u, results[team * ${M * N}u + e]);
  }
  workgroupBarrier();`;
  })}
}

fn put(place: vec4<u32>, tile: u32, token: u32, rowInTile: u32, sum: f32) {
  let row = tile * TILE_ROWS + rowInTile;
  if (token >= p.xRows || row >= place.z) { return; }
  let at = p.outOffset + token * p.outStride + place.w + row;
  var total = sum;
  if (p.hasBias != 0u) { total += bias[place.w + row]; }
  if (p.accumulate != 0u) { total += outs[at]; }
  outs[at] = total;
}`,
  });
};

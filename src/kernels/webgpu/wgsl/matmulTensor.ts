import { type GpuFormat, scaleRows, tileFunctions } from "../formats.js";
import { kernel, read, readWrite } from "../kernel.js";
import { keepsFunction } from "./keeps.js";
import { matmulInterface } from "./matmul.js";
import { findPart } from "./part.js";

/** Columns, rows and depth of the products that an adapter's matrix units make of f16, summed in f32. */
export interface TensorShape {
  M: number;
  N: number;
  K: number;
}

/** How a workgroup works. */
export interface TensorTile {
  /** Rows of x that it takes. */
  tokens: number;
  /** Subgroups: so many share its rows of x, so many its rows of W. */
  teamsDown: number;
  teamsAcross: number;
  /** Groups of 32 columns that it takes at a time. */
  groupsAtOnce: number;
  /** Whether x comes from `halve`. */
  halves: boolean;
  /** Where there are fewer workgroups, the columns are cut into slices, whose sums `addSlices` adds up. */
  workgroups: number;
}

/** Distances between rows in workgroup memory, in f16: not multiples of the banks. */
const xPitch = ({ groupsAtOnce }: TensorTile) => 32 * groupsAtOnce + 8;
const wPitch = (tileRows: number) => tileRows + 8;

/** x is multiplied with 1/16 before it becomes f16, so that up to a million it does not overflow, and sums with 16. */
const range = 16;

/**
 * Puts four numbers as f16 into an array of them, one by one: drivers join such stores, and load matrices from arrays of f16 in
 * less time than from arrays of vectors.
 */
export const putHalves = (array: string, at: string, four: string): string =>
  `{ let four = ${four}; ${[0, 1, 2, 3].map((k) => `${array}[${at} + ${k}u] = four[${k}];`).join(" ")} }`;

/** Bytes of workgroup memory that a kernel takes. */
export const matmulTensorBytes = ({ tileRows }: GpuFormat, { M, N }: TensorShape, tile: TensorTile): number =>
  2 * (tile.tokens * xPitch(tile) + 32 * tile.groupsAtOnce * wPitch(tileRows)) +
  4 * tile.teamsDown * tile.teamsAcross * M * N;

/** Columns of what `halve` makes: whole turns of any tile. */
export const halvedColumns = (cols: number): number => Math.ceil(cols / 64) * 64;

/** x / 16 as f16, with zeros behind the last column. x is read in fours: its offset and stride are multiples of 4. */
export const halve = kernel({
  name: "halve",
  enable: ["f16"],
  params: { xOffset: "u32", xStride: "u32", cols: "u32", eights: "u32" },
  buffers: { outs: readWrite("vec4<u32>"), xs: read("vec4<f32>") },
  code: /* wgsl */ `
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= p.eights) { return; }
  let row = (p.xOffset + id.y * p.xStride) / 4u;
  let last = p.cols / 4u - 1u;
  var fours: array<vec2<u32>, 2>;
  for (var i = 0u; i < 2u; i += 1u) {
    let quad = id.x * 2u + i;
    let x = select(vec4<f32>(), xs[row + min(quad, last)], vec4<bool>(quad <= last));
    fours[i] = bitcast<vec2<u32>>(vec4<f16>(x * ${1 / range}));
  }
  outs[id.y * p.eights + id.x] = vec4<u32>(fours[0], fours[1]);
}`,
});

/** out = the sum of slices [slices][rows, cols] (+ bias) (+ out). */
export const addSlices = kernel({
  name: "addSlices",
  params: {
    cols: "u32",
    slices: "u32",
    sliceStride: "u32",
    outOffset: "u32",
    outStride: "u32",
    hasBias: "u32",
    accumulate: "u32",
  },
  buffers: { outs: readWrite(), sums: read(), bias: read() },
  code: /* wgsl */ `
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= p.cols) { return; }
  var total = 0.0;
  for (var s = 0u; s < p.slices; s += 1u) { total += sums[s * p.sliceStride + id.y * p.cols + id.x]; }
  let at = p.outOffset + id.y * p.outStride + id.x;
  if (p.hasBias != 0u) { total += bias[id.x]; }
  if (p.accumulate != 0u) { total += outs[at]; }
  outs[at] = total;
}`,
});

/**
 * `matmul` on the matrix units of a GPU, which multiply f16: a workgroup owns one row tile of W × 64 rows of x. x is rounded to
 * f16; a bf16 weight is an f16 number but where it is tiny, and a code times its scale is rounded by 2⁻¹² of itself, far less
 * than the code was.
 *
 * x is read in fours, so its buffer must not be that of `outs`, and its offset and stride must be multiples of 4.
 */
export const matmulTensor = (format: GpuFormat, { M, N, K }: TensorShape, shape: TensorTile) => {
  const { unitRows, tileRows, rows, scaled } = format;
  const { tokens, teamsDown, teamsAcross, groupsAtOnce, halves } = shape;
  const teams = teamsDown * teamsAcross;
  const threads = 32 * teams;
  const teamTokens = tokens / teamsDown;
  const columns = 32 * groupsAtOnce;
  const pitch = xPitch(shape);
  const lanes = tileRows / unitRows;
  const teamRows = tileRows / teamsAcross;
  const scales = scaleRows(format);
  const stride = wPitch(tileRows);
  const value = (i: number) => (scaled ? `${rows[i]} * ${scales[i]}` : rows[i]);
  const times = (count: number, line: (i: number) => string) =>
    Array.from({ length: count }, (_, i) => line(i)).join("\n    ");
  const [down, across] = [teamTokens / M, teamRows / N];
  // What one thread reads for a step: eights of x, units of W and, for its rows, their scales.
  const eights = columns / 8;
  const xLoads = (tokens * eights) / threads;
  const wLoads = (columns * lanes) / threads;
  // Of the groups taken at once each has loads of its own, or each has threads of its own.
  const loadsOfGroup = Math.max(1, wLoads / groupsAtOnce);
  const groupsByThread = wLoads < groupsAtOnce;
  const scaleLoads = scaled ? unitRows / 8 : 0;
  const xRow = (i: number) => `(t / ${eights}u + ${(i * threads) / eights}u)`;
  const xLoad = (i: number, step: string) =>
    halves
      ? `xs[(firstToken + ${xRow(i)}) * (p.xStride / 8u) + ${step} * ${eights}u + t % ${eights}u]`
      : `eight(firstToken + ${xRow(i)}, ${step} * ${2 * eights}u + t % ${eights}u * 2u)`;
  const groupWithin = (i: number) => (groupsByThread ? `t / ${32 * lanes}u` : `${Math.floor(i / loadsOfGroup)}u`);
  const groupOf = (step: string, i: number) =>
    groupsAtOnce === 1 ? step : `min(${step} * ${groupsAtOnce}u + ${groupWithin(i)}, p.groups - 1u)`;
  const columnOf = (i: number) =>
    groupsByThread ? `t / ${lanes}u % 32u` : `(t / ${lanes}u + ${((i % loadsOfGroup) * threads) / lanes}u)`;
  const scaleGroups = groupsByThread ? 1 : groupsAtOnce;
  const loads = (step: string) => /* wgsl */ `
    ${times(xLoads, (i) => `x${i} = ${xLoad(i, step)};`)}
    ${times(wLoads, (i) => `u${i} = units[base + columnUnit(width, ${groupOf(step, i)}, ${columnOf(i)}) + lane];`)}
    ${times(scaleLoads * scaleGroups, (i) => `scale${i} = units[base + ${groupOf(step, Math.floor(i / scaleLoads) * loadsOfGroup)} * groupUnits(width) + lane * ${unitRows / 8}u + ${i % scaleLoads}u];`)}`;
  const storeFloats = (i: number) => `{
      let at = ${xRow(i)} * ${pitch}u + t % ${eights}u * 8u;
      let token = firstToken + ${xRow(i)};
      let column = step * ${columns}u + t % ${eights}u * 8u;
      let dropUpTo = select(-1.0, threshold, masked & (token >= p.sparseFromRow));
      ${[0, 1].map((half) => putHalves("xTile", `at + ${4 * half}u`, `vec4<f16>(kept(x${i}[${half}], dropUpTo, (token < p.xRows) & (column + ${4 * half}u < p.cols)))`)).join("\n      ")}
    }`;
  const storeHalves = (i: number) => `{
      let at = ${xRow(i)} * ${pitch}u + t % ${eights}u * 8u;
      ${["xy", "zw"].map((pair, half) => putHalves("xTile", `at + ${4 * half}u`, `bitcast<vec4<f16>>(x${i}.${pair})`)).join("\n      ")}
    }`;
  const firstOutput = (a: number) =>
    `firstOutput + ${Math.floor(a / across) * M}u * p.outStride + ${(a % across) * N}u`;
  return kernel({
    name: `matmul ${format.format.id} on ${M}×${N}×${K}, ${tokens} by ${teamsDown}×${teamsAcross}, ${columns}${halves ? " halves" : ""}`,
    enable: ["f16", "subgroups", "chromium_experimental_subgroup_matrix"],
    // That `team` is the same for a whole subgroup is more than the compiler can see.
    unchecked: ["chromium.subgroup_matrix_uniformity"],
    ...matmulInterface,
    buffers: { ...matmulInterface.buffers, xs: read(halves ? "vec4<u32>" : "vec4<f32>") },
    code: /* wgsl */ `${halves ? "" : keepsFunction}
${tileFunctions(format)}
var<workgroup> xTile: array<f16, ${tokens * pitch}>;
var<workgroup> wTile: array<f16, ${columns * stride}>;
var<workgroup> results: array<f32, ${teams * M * N}>;

@compute @workgroup_size(${threads})
fn main(
  @builtin(workgroup_id) id: vec3<u32>,
  @builtin(num_workgroups) count: vec3<u32>,
  @builtin(local_invocation_index) t: u32,
) {
  // Those that share rows of W run at the same time, so that these come from memory once.
  let turn = id.x + id.y * count.x;
  let workgroup = vec3<u32>(turn / count.y, turn % count.y, id.z);
  ${findPart}
  let tileInChunk = workgroup.x - place0.x;
  let tile = place1.x + tileInChunk;
  let base = place0.y + tileInChunk * tileUnits(p.groups);
  let width = tileWidth(place0.z, tile);
  let firstToken = workgroup.y * ${tokens}u;
  ${halves ? "" : "let threshold = bitcast<f32>(place1.y);\n  let masked = place1.z != 0u;"}
  let team = t / 32u;
  let firstOwn = team % ${teamsDown}u * ${teamTokens}u;
  let firstRow = team / ${teamsDown}u * ${teamRows}u;

  let lane = min(t % ${lanes}u, width - 1u);
  // Whole tiles of outputs are stored, and added to what is there, by matrices.
  let isWhole = p.aligned != 0u && firstToken + ${tokens}u <= p.xRows && (tile + 1u) * TILE_ROWS <= place0.z;
  let firstOutput = p.outOffset + workgroup.z * p.sliceStride + (firstToken + firstOwn) * p.outStride + place0.w + tile * TILE_ROWS + firstRow;
  ${times(down * across, (a) => `var acc${a} = subgroup_matrix_result<f32, ${N}, ${M}>();`)}
  if (isWhole && p.accumulate != 0u) {
    ${times(down * across, (a) => `acc${a} = subgroupMatrixScalarMultiply(subgroupMatrixLoad<subgroup_matrix_result<f32, ${N}, ${M}>, row_major>(&outs, ${firstOutput(a)}, p.outStride), ${1 / range});`)}
  }
  ${times(xLoads, (i) => `var x${i} = ${halves ? "vec4<u32>()" : "array<vec4<f32>, 2>()"};`)}
  ${times(wLoads, (i) => `var u${i} = vec4<u32>();`)}
  ${times(scaleLoads * scaleGroups, (i) => `var scale${i} = vec4<u32>();`)}
  let firstStep = workgroup.z * p.stepsOfSlice;
  let endStep = min(firstStep + p.stepsOfSlice, (p.groups + ${groupsAtOnce - 1}u) / ${groupsAtOnce}u);
  ${loads("firstStep")}
  for (var step = firstStep; step < endStep; step += 1u) {
    ${times(xLoads, (i) => (halves ? storeHalves(i) : storeFloats(i)))}
    ${times(
      wLoads,
      (i) => `{
      let u = u${i};
      ${times(scaleLoads, (k) => `let s${k} = scale${Math.floor(i / loadsOfGroup) * scaleLoads + k};`)}
      let at = (${groupWithin(i)} * 32u + ${columnOf(i)}) * ${stride}u + t % ${lanes}u * ${unitRows}u;
      ${times(rows.length, (r) => putHalves("wTile", `at + ${4 * r}u`, `vec4<f16>(${value(r)})`))}
    }`,
    )}
    workgroupBarrier();
    // The next step is read while this one is multiplied.
    let next = min(step + 1u, endStep - 1u);
    ${loads("next")}
    ${times(columns / K, (k) =>
      [
        times(
          down,
          (i) =>
            `let left${k}_${i} = subgroupMatrixLoad<subgroup_matrix_left<f16, ${K}, ${M}>, row_major>(&xTile, (firstOwn + ${i * M}u) * ${pitch}u + ${k * K}u, ${pitch}u);`,
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

  if (isWhole) {
    ${times(down * across, (a) => `subgroupMatrixStore<row_major>(&outs, ${firstOutput(a)}, subgroupMatrixScalarMultiply(acc${a}, ${range}.0), p.outStride);`)}
    return;
  }
  ${times(
    down * across,
    (a) => `
  subgroupMatrixStore<row_major>(&results, team * ${M * N}u, acc${a}, ${N}u);
  workgroupBarrier();
  for (var e = t % 32u; e < ${M * N}u; e += 32u) {
    put(workgroup.z, place0, tile, firstToken + firstOwn + ${Math.floor(a / across) * M}u + e / ${N}u, firstRow + ${(a % across) * N}u + e % ${N}u, results[team * ${M * N}u + e]);
  }
  workgroupBarrier();`,
  )}
}

${halves ? "" : floatFunctions}

fn put(slice: u32, place: vec4<u32>, tile: u32, token: u32, rowInTile: u32, sum: f32) {
  let row = tile * TILE_ROWS + rowInTile;
  if (token >= p.xRows || row >= place.z) { return; }
  let at = p.outOffset + slice * p.sliceStride + token * p.outStride + place.w + row;
  var total = sum * ${range}.0;
  if (p.hasBias != 0u) { total += bias[place.w + row]; }
  if (p.accumulate != 0u) { total += outs[at]; }
  outs[at] = total;
}`,
  });
};

const floatFunctions = /* wgsl */ `
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
}`;

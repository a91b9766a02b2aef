import { type GpuFormat, scaleRows, tileFunctions } from "../formats.js";
import { kernel, read, readWrite } from "../kernel.js";

/** Parts of a stack that one dispatch of `matvec` takes: they travel in the parameter block, two vec4<u32> each. */
export const matvecParts = 6;

/** Columns of the largest slice that one workgroup takes. */
export const sliceColumns = 512;

/** Marks a part whose inputs another dispatch counts. */
export const notCounted = 0xffffffff;

/**
 * out = x·Wᵀ for one row of x. A workgroup owns one row tile × one slice of the columns; its threads are `lanes` units of
 * a column × groups of columns side by side. Sums over the column groups go through workgroup memory, sums over slices
 * through a buffer of partial sums (see `reduce`), always in the same order. Takes 2 · threads · unitRows bytes of workgroup
 * memory, and 4 KiB more.
 *
 * The sparse variant first lists the columns of its slice whose |x| exceeds the part's threshold, in ascending order, and
 * walks that list; nothing else differs.
 *
 * Table, per part: (first workgroup, first unit, rows, first output column), (first tile, threshold bits, counter, –).
 */
export const matvec = (format: GpuFormat, sparse: boolean, threads: number) => {
  const { unitRows, tileRows, scaled, rows } = format;
  const lanes = tileRows / unitRows;
  const columnGroups = threads / lanes;
  const unroll = scaled ? 8 : 4;
  const quads = rows.length;
  const each = (line: (i: number) => string) => rows.map((_, i) => line(i)).join("\n  ");

  /** Adds the columns `begin, begin + step … < end` of the list to the accumulators `into0 …`. */
  const sum = (into: string, begin: string, step: number, end: string) => /* wgsl */ `
  for (var e = ${begin}; e < ${end}; e += ${step * unroll}u) {
    ${Array.from({ length: unroll }, (_, k) =>
      k === 0
        ? "let e0 = e; let x0 = value(e0);"
        : // Past the end: the last column again, times 0, so that all loads of a round are independent.
          `let e${k} = min(e + ${k * step}u, ${end} - 1u); let x${k} = select(0.0, value(e${k}), e + ${k * step}u < ${end});`,
    ).join("\n    ")}
    ${Array.from({ length: unroll }, (_, k) => `let u${k} = units[base + place(width, firstGroup, e${k}) + lane];`).join("\n    ")}
    ${Array.from({ length: unroll }, (_, k) => `{ let u = u${k}; ${rows.map((row, i) => `${into}${i} = fma(${row}, vec4<f32>(x${k}), ${into}${i});`).join(" ")} }`).join("\n    ")}
  }`;

  const body = scaled
    ? /* wgsl */ `
  for (var g = columnGroup; g < groupCount; g += ${columnGroups}u) {
    let begin = ${sparse ? "starts[g]" : "g * 32u"};
    let end = ${sparse ? "starts[g + 1u]" : "g * 32u + 32u"};
    if (begin == end) { continue; }
    ${each((i) => `var part${i} = vec4<f32>();`)}
    ${sum("part", "begin", 1, "end")}
    let scales = base + (firstGroup + g) * groupUnits(width) + lane * ${unitRows / 8}u;
    ${Array.from({ length: unitRows / 8 }, (_, i) => `let s${i} = units[scales + ${i}u];`).join("\n    ")}
    ${scaleRows(unitRows)
      .map((scale, i) => `acc${i} = fma(${scale}, part${i}, acc${i});`)
      .join("\n    ")}
  }`
    : /* wgsl */ `
  let end = ${sparse ? "starts[groupCount]" : "groupCount * 32u"};
  ${sum("acc", "columnGroup", columnGroups, "end")}`;

  return kernel({
    name: `matvec ${format.format.id}${sparse ? " sparse" : ""}`,
    params: {
      xOffset: "u32",
      cols: "u32",
      groups: "u32",
      groupsPerSlice: "u32",
      parts: "u32",
      outOffset: "u32",
      sliceStride: "u32",
      hasBias: "u32",
      accumulate: "u32",
    },
    tableLength: 2 * matvecParts,
    buffers: {
      outs: readWrite(),
      xs: read(),
      units: read("vec4<u32>"),
      bias: read(),
      counters: readWrite("atomic<u32>"),
    },
    code: /* wgsl */ `
${tileFunctions(format)}
const THREADS = ${threads}u;
const LANES = ${lanes}u;
var<workgroup> values: array<f32, ${sliceColumns}>;
var<workgroup> sums: array<vec4<f32>, ${Math.max((quads * threads) / 2, tileRows / 4)}>;
${sparse ? sparseDeclarations : ""}
fn value(e: u32) -> f32 { return values[e]; }
fn place(width: u32, firstGroup: u32, e: u32) -> u32 {
  let column = ${sparse ? "columns[e]" : "e"};
  return columnUnit(width, firstGroup + column / 32u, column % 32u);
}

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  var part = 0u;
  while (part + 1u < p.parts && workgroup.x >= p.table[2u * part + 2u].x) { part += 1u; }
  let place0 = p.table[2u * part];
  let place1 = p.table[2u * part + 1u];
  let tile = place1.x + workgroup.x - place0.x;
  let base = place0.y + (workgroup.x - place0.x) * tileUnits(p.groups);
  let width = tileWidth(place0.z, tile);
  let lane = min(t % LANES, width - 1u);
  let columnGroup = t / LANES;

  let firstGroup = workgroup.y * p.groupsPerSlice;
  let groupCount = min(p.groupsPerSlice, p.groups - firstGroup);
  let firstColumn = firstGroup * 32u;
  ${sparse ? listActive : stage}

  ${each((i) => `var acc${i} = vec4<f32>();`)}
  ${body}

  ${halvings(columnGroups)
    .map(
      (half) => /* wgsl */ `
  if (columnGroup >= ${half}u && columnGroup < ${2 * half}u) {
    let to = t - ${half * lanes}u;
    ${each((i) => `sums[${(i * threads) / 2}u + to] = acc${i};`)}
  }
  workgroupBarrier();
  if (columnGroup < ${half}u) {
    ${each((i) => `acc${i} += sums[${(i * threads) / 2}u + t];`)}
  }
  workgroupBarrier();`,
    )
    .join("")}
  if (t < width) {
    ${each((i) => `sums[t * ${quads}u + ${i}u] = acc${i};`)}
  }
  workgroupBarrier();
  for (var r = t; r < min(TILE_ROWS, place0.z - tile * TILE_ROWS); r += THREADS) {
    let column = place0.w + tile * TILE_ROWS + r;
    var total = sums[r / 4u][r % 4u];
    let at = p.outOffset + workgroup.y * p.sliceStride + column;
    if (p.hasBias != 0u) { total += bias[column]; }
    if (p.accumulate != 0u) { total += outs[at]; }
    outs[at] = total;
  }
}`,
  });
};

const halvings = (n: number): number[] => (n === 1 ? [] : [n / 2, ...halvings(n / 2)]);

/** Dense: the slice of x. */
const stage = /* wgsl */ `
  for (var i = t; i < groupCount * 32u; i += THREADS) {
    let c = firstColumn + i;
    values[i] = select(0.0, xs[p.xOffset + min(c, p.cols - 1u)], c < p.cols);
  }
  workgroupBarrier();`;

const sparseDeclarations = /* wgsl */ `
var<workgroup> columns: array<u32, ${sliceColumns}>;
/** One bit per column of a group: its |x| exceeds the threshold. */
var<workgroup> masks: array<atomic<u32>, ${sliceColumns / 32}>;
/** Where each group begins in the list. */
var<workgroup> starts: array<u32, ${sliceColumns / 32 + 1}>;
`;

const listActive = /* wgsl */ `
  let threshold = bitcast<f32>(place1.y);
  if (t < groupCount) { atomicStore(&masks[t], 0u); }
  workgroupBarrier();
  for (var i = t; i < groupCount * 32u; i += THREADS) {
    let c = firstColumn + i;
    if (c < p.cols && abs(xs[p.xOffset + c]) > threshold) { atomicOr(&masks[i / 32u], 1u << (i % 32u)); }
  }
  workgroupBarrier();
  if (t <= groupCount) {
    var start = 0u;
    for (var g = 0u; g < t; g += 1u) { start += countOneBits(atomicLoad(&masks[g])); }
    starts[t] = start;
  }
  workgroupBarrier();
  for (var i = t; i < groupCount * 32u; i += THREADS) {
    let mask = atomicLoad(&masks[i / 32u]);
    let bit = 1u << (i % 32u);
    if ((mask & bit) != 0u) {
      let e = starts[i / 32u] + countOneBits(mask & (bit - 1u));
      columns[e] = i;
      values[e] = xs[p.xOffset + firstColumn + i];
    }
  }
  if (t == 0u && workgroup.x == place0.x && place1.z != ${notCounted}u) {
    var touched = 0u;
    for (var g = 0u; g < groupCount; g += 1u) { touched += select(0u, 1u, atomicLoad(&masks[g]) != 0u); }
    atomicAdd(&counters[place1.z], starts[groupCount]);
    atomicAdd(&counters[place1.z + 1u], touched);
  }
  workgroupBarrier();`;

export const reduceThreads = 64;

/** out = sum over slices of partial sums [slices][cols] (+ bias) (+ out). */
export const reduce = kernel({
  name: "reduce",
  params: { cols: "u32", slices: "u32", outOffset: "u32", hasBias: "u32", accumulate: "u32" },
  buffers: { outs: readWrite(), partials: read(), bias: read() },
  code: /* wgsl */ `
@compute @workgroup_size(${reduceThreads})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let c = id.x;
  if (c >= p.cols) { return; }
  var total = 0.0;
  for (var s = 0u; s < p.slices; s += 1u) { total += partials[s * p.cols + c]; }
  if (p.hasBias != 0u) { total += bias[c]; }
  if (p.accumulate != 0u) { total += outs[p.outOffset + c]; }
  outs[p.outOffset + c] = total;
}`,
});

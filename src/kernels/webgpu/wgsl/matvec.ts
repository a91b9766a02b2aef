import type { ActivationFunction } from "../../../core/index.js";
import { type GpuFormat, scaleRows, tileFunctions } from "../formats.js";
import { kernel, read, readWrite } from "../kernel.js";
import { activationFunction } from "./elementwise.js";
import { findPart } from "./part.js";

/** Parts of a stack that one dispatch of `matvec` takes: they travel in the parameter block, two vec4<u32> each. */
export const matvecParts = 6;

/** Marks a part whose inputs another dispatch counts. */
export const notCounted = 0xffffffff;

/** What is multiplied: x, or f(x) times a second vector. */
export type MatvecInput = "plain" | ActivationFunction;

/** What suits a device: see `matvec`. */
export interface MatvecTuning {
  /** Whether subgroups have 32 threads, always. */
  subgroups32: boolean;
  /** Threads of a workgroup, a power of two, at least 32. */
  threads: number;
  /** Columns of the largest slice that a workgroup takes whose inputs are listed, a multiple of `threads` and of 32. */
  sparseColumns: number;
  /** Columns that a thread reads before it uses the first of them. */
  unroll: number;
}

/** Distance between the sums of neighbouring pairs of rows in workgroup memory, so chosen that they lie in other banks. */
const pitchOf = ({ tileRows, unitRows }: GpuFormat, threads: number) => threads + tileRows / unitRows;

/** Bytes of workgroup memory that a kernel takes. */
export const matvecBytes = (format: GpuFormat, sparse: boolean, { threads, sparseColumns }: MatvecTuning) => {
  const sums = pitchOf(format, threads) * format.unitRows * 4;
  return Math.max(sums, listLength(sparseColumns) * 8) + (sparse ? sparseColumns / 8 : 0) + 4;
};

/** Places for so many columns; see `slot`. */
const listLength = (columns: number) => columns + columns / 32;

/** Where a workgroup finds what it works on, in WGSL. */
const places = {
  /** One product. */
  one: { declare: "", enter: "", x: "p.xOffset", out: "p.outOffset", units: "place0.y", ticket: "0u", slice: "0u" },
  /** One for every slot of a routing, of which `workgroup.z` is the number, with the matrix of its expert. */
  slots: {
    declare: "var<private> slot: u32;",
    enter: "slot = workgroup.z;",
    x: "(p.xOffset + slot * p.xStride)",
    out: "(p.outOffset + slot * p.outStride)",
    units: "(place0.y + min(routing[slot], p.experts - 1u) * p.expertUnits)",
    ticket: "(slot * p.tickets)",
    slice: "(slot * p.slices)",
  },
};
type Place = (typeof places)["one"];

/**
 * out = x·Wᵀ (+ bias) (+ out) for one row of x. A workgroup owns one row tile × one slice of the columns; its threads are
 * `lanes` units of a column (at most 32) × columns side by side.
 *
 * The sparse variant first lists the columns of its slice whose |x| exceeds the part's threshold, and walks that list. So
 * that no thread waits for all others to count, there is one list for every 32 threads, of a share of the slice, or with
 * scales one for every group of 32 columns.
 *
 * Sums are joined in workgroup memory; those of several slices by the workgroup that finishes its tile last. WGSL orders
 * no writes between workgroups, so a partial sum travels in an atomic word that is 0 while it is empty: the last workgroup
 * takes each with an exchange, which empties it again, until it holds something. Every sum is added in the same order
 * whoever comes last.
 *
 * Table, per part: (first workgroup, first unit, rows, first output column), (first tile, threshold bits, counter, –).
 * `exchange`: a ticket per tile, then partial sums [slices][exchangeStride]; all 0 between dispatches.
 */
export const matvec = (format: GpuFormat, sparse: boolean, tuning: MatvecTuning, input: MatvecInput = "plain") =>
  kernel({
    ...program(format, sparse, tuning, input, places.one),
    params: { ...params, upOffset: "u32", gateThreshold: "f32" },
    buffers: { ...buffers, ups: read() },
  });

/**
 * out[s] = x[s]·Wᵀ with the matrix of the expert `routing[s]`, for each of few slots s. The matrices lie one after another,
 * `expertUnits` apart; workgroups are [tiles, slices, slots], with `tickets` tiles in a slot.
 */
export const expertMatvec = (format: GpuFormat, sparse: boolean, tuning: MatvecTuning) => {
  const common = program(format, sparse, tuning, "plain", places.slots);
  return kernel({
    ...common,
    name: `${common.name} experts`,
    params: { ...params, xStride: "u32", outStride: "u32", experts: "u32", expertUnits: "u32", tickets: "u32" },
    buffers: { ...buffers, routing: read("u32") },
  });
};

const params = {
  xOffset: "u32",
  cols: "u32",
  groups: "u32",
  groupsPerSlice: "u32",
  slices: "u32",
  parts: "u32",
  outOffset: "u32",
  exchangeStride: "u32",
  hasBias: "u32",
  accumulate: "u32",
} as const;

const buffers = {
  outs: readWrite(),
  xs: read(),
  units: read("vec4<u32>"),
  bias: read(),
  counters: readWrite("atomic<u32>"),
  exchange: readWrite("atomic<u32>"),
};

const program = (format: GpuFormat, sparse: boolean, tuning: MatvecTuning, input: MatvecInput, at: Place) => {
  const { unitRows, tileRows, scaled, rows } = format;
  const { threads, sparseColumns, unroll, subgroups32 } = tuning;
  const lanes = tileRows / unitRows;
  const listed = sparse || input !== "plain";
  const pitch = pitchOf(format, threads);
  const columnGroups = threads / lanes;
  const each = (line: (i: number) => string) => rows.map((_, i) => line(i)).join("\n  ");
  const rounds = (line: (k: number) => string) => Array.from({ length: unroll }, (_, k) => line(k)).join("\n    ");

  /**
   * Adds columns `begin, begin + step … < end` of the list (or of the slice) to the accumulators `into0 …`. `start` is the
   * unit of column 0; `whole` says that no round reaches past the end.
   */
  const sum = (into: string, start: string, begin: string, step: number, end: string, whole: boolean) => /* wgsl */ `
  for (var e = ${begin}; e < ${end}; e += ${step * unroll}u) {
    ${rounds((k) =>
      // Past the end: the last column again, times 0, so that all loads of a round are independent.
      whole || k === 0
        ? `let e${k} = e + ${k * step}u; let x${k} = value(e${k}, xStart);`
        : `let e${k} = min(e + ${k * step}u, ${end} - 1u); let x${k} = select(0.0, value(e${k}, xStart), e + ${k * step}u < ${end});`,
    )}
    ${rounds((k) => `let u${k} = units[${start} + unitOf(e${k}, width)];`)}
    ${rounds((k) => `{ let u = u${k}; ${rows.map((row, i) => `${into}${i} = fma(${row}, vec4<f32>(x${k}), ${into}${i});`).join(" ")} }`)}
  }`;

  const body = scaled
    ? /* wgsl */ `
  for (var g = columnGroup; g < groupCount; g += ${columnGroups}u) {
    let xStart = firstColumn + g * 32u;
    let begin = ${sparse ? "g * 32u" : "0u"};
    let end = ${sparse ? "begin + countOneBits(maskOf(g))" : "32u"};
    if (begin == end) { continue; }
    let scales = ${at.units} + tileInChunk * tileUnits(p.groups) + (firstGroup + g) * groupUnits(width) + lane * ${unitRows / 8}u;
    let start = base + columnUnit(width, firstGroup + g, 0u);
    ${Array.from({ length: unitRows / 8 }, (_, i) => `let s${i} = units[scales + ${i}u];`).join("\n    ")}
    ${each((i) => `var part${i} = vec4<f32>();`)}
    ${sum("part", "start", "begin", 1, "end", !sparse)}
    ${scaleRows(format)
      .map((scale, i) => `acc${i} = fma(${scale}, part${i}, acc${i});`)
      .join("\n    ")}
  }`
    : /* wgsl */ `
  let xStart = firstColumn;
  let start = base + columnUnit(width, firstGroup, 0u);
  ${
    sparse
      ? `let end = listStart + kept;
  ${sum("acc", "start", `listStart + within / LANES`, 32 / lanes, "end", false)}`
      : `let end = groupCount * 32u;
  ${sum("acc", "start", "columnGroup", columnGroups, "end", false)}`
  }`;

  // The sums of a tile are added in pairs of rows. Threads beyond the pairs take a share of the column groups.
  const pairs = tileRows / 2;
  const shares = Math.max(1, threads / pairs);
  const poolLength = Math.max((pitch * unitRows) / 2, listed ? listLength(sparseColumns) : 0);

  return {
    name: `matvec ${format.format.id} ${tileRows} ${threads} ${unroll}${sparse ? ` sparse ${sparseColumns} ${subgroups32}` : ""}${input === "plain" ? "" : ` ${input}`}`,
    ...(sparse && subgroups32 ? { enable: ["subgroups"] } : {}),
    tableLength: 2 * matvecParts,
    code: /* wgsl */ `
${tileFunctions(format)}
const THREADS = ${threads}u;
const LANES = ${lanes}u;
const MAX_TICKETS = ${maxTickets}u;
/** First the lists (unit of the column, bits of x), then the sums of pairs of rows. */
var<workgroup> pool: array<vec2<u32>, ${poolLength}>;
var<workgroup> isLast: u32;
${at.declare}
${inputFunctions(input, at)}
${sparse ? listDeclarations(tuning) : listed ? stagedFunctions : denseFunctions}

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  ${findPart}
  ${at.enter}
  let tileInChunk = workgroup.x - place0.x;
  let tile = place1.x + tileInChunk;
  let width = tileWidth(place0.z, tile);
  let lane = min(t % LANES, width - 1u);
  let base = ${at.units} + tileInChunk * tileUnits(p.groups) + lane;
  let columnGroup = t / LANES;

  let firstGroup = workgroup.y * p.groupsPerSlice;
  let groupCount = min(p.groupsPerSlice, p.groups - firstGroup);
  let firstColumn = firstGroup * 32u;
  ${sparse ? listActive(format, tuning) : listed ? listAll : ""}

  ${each((i) => `var acc${i} = vec4<f32>();`)}
  ${body}
  ${listed ? "workgroupBarrier();" : ""}

  ${each(
    (i) =>
      `pool[${2 * i * pitch}u + t] = bitcast<vec2<u32>>(acc${i}.xy); pool[${(2 * i + 1) * pitch}u + t] = bitcast<vec2<u32>>(acc${i}.zw);`,
  )}
  workgroupBarrier();
  ${
    shares === 1
      ? ""
      : /* wgsl */ `
  let own = addPairs(t % ${pairs}u, t / ${pairs}u);
  workgroupBarrier();
  pool[t] = bitcast<vec2<u32>>(own);
  workgroupBarrier();`
  }

  let tileStart = place0.w + tile * TILE_ROWS;
  let tileEnd = place0.w + place0.z;
  for (var pair = t; pair < ${pairs}u; pair += THREADS) {
    ${
      shares === 1
        ? "let total = addPairs(pair, 0u);"
        : `
    var total = vec2<f32>();
    for (var s = 0u; s < ${shares}u; s += 1u) { total += bitcast<vec2<f32>>(pool[s * ${pairs}u + pair]); }`
    }
    let column = tileStart + pair % LANES * UNIT_ROWS + pair / LANES * 2u;
    for (var i = 0u; i < 2u; i += 1u) {
      if (column + i >= tileEnd) { continue; }
      if (p.slices == 1u) {
        put(column + i, total[i]);
      } else {
        // 0 means empty: a sum of 0 travels as −0.
        let bits = bitcast<u32>(total[i]);
        atomicStore(&exchange[p.exchangeStride * (${at.slice} + workgroup.y) + MAX_TICKETS + column + i], select(bits, 0x80000000u, bits == 0u));
      }
    }
  }
  if (p.slices == 1u) { return; }

  if (t == 0u) {
    let ticket = atomicAdd(&exchange[${at.ticket} + workgroup.x], 1u);
    isLast = select(0u, 1u, ticket == p.slices - 1u);
    if (ticket == p.slices - 1u) { atomicStore(&exchange[${at.ticket} + workgroup.x], 0u); }
  }
  if (workgroupUniformLoad(&isLast) == 0u) { return; }
  for (var r = t; r < min(TILE_ROWS, tileEnd - tileStart); r += THREADS) {
    var total = 0.0;
    for (var s = 0u; s < p.slices; s += 4u) {
      let at = MAX_TICKETS + tileStart + r + p.exchangeStride * (${at.slice} + s);
      var taken = vec4<u32>(0x80000000u);
      taken.x = atomicExchange(&exchange[at], 0u);
      if (s + 1u < p.slices) { taken.y = atomicExchange(&exchange[at + p.exchangeStride], 0u); }
      if (s + 2u < p.slices) { taken.z = atomicExchange(&exchange[at + p.exchangeStride * 2u], 0u); }
      if (s + 3u < p.slices) { taken.w = atomicExchange(&exchange[at + p.exchangeStride * 3u], 0u); }
      for (var i = 0u; i < 4u; i += 1u) { total += arrived(taken[i], at + p.exchangeStride * i); }
    }
    put(tileStart + r, total);
  }
}

/** The value of a word taken from the exchange; waits for it if it was still empty. */
fn arrived(taken: u32, at: u32) -> f32 {
  var bits = taken;
  // The writer has run: its write is under way. The bound turns a broken driver into a wrong number, not a hung GPU.
  for (var tries = 0u; bits == 0u && tries < 1000000u; tries += 1u) { bits = atomicExchange(&exchange[at], 0u); }
  return bitcast<f32>(bits);
}

fn put(column: u32, sum: f32) {
  var total = sum;
  if (p.hasBias != 0u) { total += bias[column]; }
  if (p.accumulate != 0u) { total += outs[${at.out} + column]; }
  outs[${at.out} + column] = total;
}

/** Sums of two rows, of one share of the column groups. Lanes run fastest. */
fn addPairs(pair: u32, share: u32) -> vec2<f32> {
  var total = vec2<f32>();
  let first = pair / LANES * ${pitch}u + pair % LANES;
  for (var g = share * ${columnGroups / shares}u; g < (share + 1u) * ${columnGroups / shares}u; g += 1u) {
    total += bitcast<vec2<f32>>(pool[first + g * LANES]);
  }
  return total;
}`,
  };
};

/** Tickets at the beginning of the exchange buffer: more than a grid has columns. */
export const maxTickets = 65536;

/** `inputAt`: what column c is multiplied with. */
const inputFunctions = (input: MatvecInput, { x }: Place) =>
  input === "plain"
    ? `fn inputAt(c: u32) -> f32 { return xs[${x} + c]; }`
    : /* wgsl */ `
${activationFunction(input)}
fn inputAt(c: u32) -> f32 {
  let activated = f(xs[${x} + c]);
  return select(activated * ups[p.upOffset + c], 0.0, abs(activated) < p.gateThreshold);
}`;

/** The inputs of the slice, in their order; 0 beyond the last column. Threads of several groups read them at once: see `slot`. */
const listAll = /* wgsl */ `
  sliceStart = firstColumn;
  for (var c = t; c < groupCount * 32u; c += THREADS) {
    let column = firstColumn + c;
    pool[slot(c)].y = bitcast<u32>(select(0.0, inputAt(min(column, p.cols - 1u)), column < p.cols));
  }
  workgroupBarrier();`;

const stagedFunctions = /* wgsl */ `
var<private> sliceStart: u32;
/** Groups lie 33 apart, in other banks. */
fn slot(c: u32) -> u32 { return c + c / 32u; }
fn unitOf(e: u32, width: u32) -> u32 { return e * width; }
fn value(e: u32, xStart: u32) -> f32 { return bitcast<f32>(pool[slot(xStart - sliceStart + e)].y); }`;

const denseFunctions = /* wgsl */ `
fn unitOf(e: u32, width: u32) -> u32 { return e * width; }
fn value(e: u32, xStart: u32) -> f32 {
  let c = xStart + e;
  return select(0.0, inputAt(min(c, p.cols - 1u)), c < p.cols);
}`;

const listDeclarations = ({ sparseColumns, subgroups32 }: MatvecTuning) => /* wgsl */ `
/** One bit per column of a group: its |x| exceeds the threshold. */
var<workgroup> masks: array<${subgroups32 ? "u32" : "atomic<u32>"}, ${sparseColumns / 32}>;
fn unitOf(e: u32, width: u32) -> u32 { return pool[e].x; }
fn value(e: u32, xStart: u32) -> f32 { return bitcast<f32>(pool[e].y); }
fn maskOf(g: u32) -> u32 { return ${subgroups32 ? "masks[g]" : "atomicLoad(&masks[g])"}; }`;

/**
 * Lists the active columns of the slice in `pool`. Every 32 threads look at several groups of 32 columns: at consecutive
 * ones, listed from `listStart` on without a gap, `kept` of them; or with scales at groups apart, each listed by itself.
 */
const listActive = ({ scaled }: GpuFormat, { threads, sparseColumns, subgroups32 }: MatvecTuning) => {
  const teams = threads / 32;
  const each = (line: (j: number) => string) =>
    Array.from({ length: Math.ceil(sparseColumns / threads) }, (_, j) => line(j)).join("\n  ");
  return /* wgsl */ `
  let threshold = bitcast<f32>(place1.y);
  let sliceEnd = min(p.cols - firstColumn, groupCount * 32u);
  let team = t / 32u;
  let within = t % 32u;
  let share = (groupCount + ${teams - 1}u) / ${teams}u;
  let listStart = team * share * 32u;
  ${each((j) => `let g${j} = ${scaled ? `team + ${j * teams}u` : `team * share + ${j}u`}; let c${j} = g${j} * 32u + within;`)}
  ${each((j) => `let x${j} = inputAt(min(firstColumn + c${j}, p.cols - 1u));`)}
  ${each((j) => `let active${j} = ${scaled ? "" : `${j}u < share && `}c${j} < sliceEnd && abs(x${j}) > threshold;`)}
  ${
    subgroups32
      ? each((j) => `let mask${j} = subgroupBallot(active${j}).x;`)
      : /* wgsl */ `
  for (var g = t; g < groupCount; g += THREADS) { atomicStore(&masks[g], 0u); }
  workgroupBarrier();
  ${each((j) => `if (active${j}) { atomicOr(&masks[g${j}], 1u << within); }`)}
  workgroupBarrier();
  ${each((j) => `let mask${j} = select(0u, maskOf(min(g${j}, groupCount - 1u)), ${scaled ? "" : `${j}u < share && `}g${j} < groupCount);`)}`
  }
  let before = (1u << within) - 1u;
  var kept = 0u;
  var groupsKept = 0u;
  ${each(
    (j) => /* wgsl */ `
  if (active${j}) {
    pool[${scaled ? `g${j} * 32u` : "listStart + kept"} + countOneBits(mask${j} & before)] = vec2<u32>(${scaled ? "within" : `c${j}`} * width, bitcast<u32>(x${j}));
  }
  ${scaled && subgroups32 ? `if (within == 0u && g${j} < groupCount) { masks[g${j}] = mask${j}; }` : ""}
  kept += countOneBits(mask${j});
  groupsKept += select(0u, 1u, mask${j} != 0u);`,
  )}
  if (workgroup.x == place0.x && place1.z != ${notCounted}u && within == 0u) {
    atomicAdd(&counters[place1.z], kept);
    atomicAdd(&counters[place1.z + 1u], groupsKept);
  }
  workgroupBarrier();`;
};

import { type GpuFormat, scaleRows, tileFunctions } from "../formats.js";
import { kernel, read, readWrite } from "../kernel.js";
import { exchangeFunctions } from "./exchange.js";
import {
  denseFunctions,
  inputFunctions,
  type ListTuning,
  listActive,
  listAll,
  listDeclarations,
  listLength,
  type MatvecInput,
  stagedFunctions,
} from "./matvecInputs.js";
import { oneProduct, type Place, slotProducts } from "./matvecPlaces.js";
import { rowSums } from "./matvecSums.js";
import { findPart } from "./part.js";

/** Parts of a stack that one dispatch of `matvec` takes: they travel in the parameter block, two vec4<u32> each. */
export const matvecParts = 6;

/** What suits a device: see `matvec`. */
export interface MatvecTuning extends ListTuning {
  /** Columns that a thread reads before it uses the first of them. */
  unroll: number;
  /** Whether sums of rows are joined by subgroups, where `subgroups32`. */
  joinBySubgroups: boolean;
  /** Whether the few products that a thread makes of a group are made, and added up, in f16, two at a time. */
  byHalves: boolean;
  /**
   * With scales: from how many groups 32 threads take columns at once, a power of two, at most 32 / the units of a column.
   * The more, the more columns of a group are one thread's, which multiplies their sum by the scales once.
   */
  groupsAside: number;
}

/** Bytes of workgroup memory that a kernel takes. */
export const matvecBytes = (format: GpuFormat, sparse: boolean, tuning: MatvecTuning) => {
  const { sparseColumns } = tuning;
  const pairs = Math.max(rowSums(format, tuning).poolLength, listLength(sparseColumns));
  return pairs * 8 + (sparse ? sparseColumns / 8 : 0) + 4;
};

/**
 * out = x·Wᵀ (+ bias) (+ out) for one row of x. A workgroup owns one row tile × one slice of the columns; its threads are
 * `lanes` units of a column (at most 32) × columns side by side.
 *
 * The sparse variant first lists the columns of its slice whose |x| exceeds the part's threshold, and walks that list. So
 * that no thread waits for all others to count, there is one list for every 32 threads, of a share of the slice, or with
 * scales one for every group of 32 columns.
 *
 * Sums are joined in workgroup memory; those of several slices by the workgroup that finishes its tile last, through
 * `exchange`. Every sum is added in the same order whoever comes last.
 *
 * A norm on either side may be part of it. When x is followed by `squares`, the shares of its sum of squares, what counts is
 * x / √(mean(x²) + epsilon). When a norm comes next (`rowVector.nextNorm`), `scaled` gets the results times the weight of
 * that norm, and `squaresOut` the sum of their squares over each tile.
 *
 * Table, per part: (first workgroup, first unit, rows, first output column), (first tile, threshold bits, counter, –).
 * `exchange`: a ticket per tile, then partial sums [slices][exchangeStride]; all 0 between dispatches.
 */
export const matvec = (format: GpuFormat, sparse: boolean, tuning: MatvecTuning, input: MatvecInput = "plain") =>
  kernel({
    ...program(format, sparse, tuning, input, oneProduct(format, tuning)),
    params: {
      ...params,
      vectorUse: "u32",
      upOffset: "u32",
      gateThreshold: "f32",
      squareCount: "u32",
      epsilon: "f32",
      scaledOffset: "u32",
      firstSquare: "u32",
    },
    buffers: {
      ...buffers,
      ups: read(),
      vector: read(),
      squares: read(),
      scaled: readWrite(),
      squaresOut: readWrite(),
    },
  });

/**
 * out[s] = x[s]·Wᵀ with the matrix of the expert `routing[s]`, for each of few slots s. The matrices lie one after another,
 * `expertUnits` apart; workgroups are [tiles, slices, slots], with `tickets` tiles in a slot.
 */
export const expertMatvec = (format: GpuFormat, sparse: boolean, tuning: MatvecTuning) => {
  const common = program(format, sparse, tuning, "plain", slotProducts);
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
  accumulate: "u32",
} as const;

const buffers = {
  outs: readWrite(),
  xs: read(),
  units: read("vec4<u32>"),
  counters: readWrite("atomic<u32>"),
  exchange: readWrite("atomic<u32>"),
};

const program = (format: GpuFormat, sparse: boolean, tuning: MatvecTuning, input: MatvecInput, at: Place) => {
  const { unitRows, tileRows, scaled, rows } = format;
  const { threads, sparseColumns, unroll, subgroups32, joinBySubgroups, byHalves, groupsAside } = tuning;
  const lanes = tileRows / unitRows;
  const listed = sparse || input !== "plain";
  const sums = rowSums(format, tuning);
  const columnGroups = threads / lanes;
  const each = (line: (i: number) => string) => rows.map((_, i) => line(i)).join("\n  ");
  // So many threads take a group, so many of its columns side by side.
  const team = 32 / groupsAside;
  const columnStep = team / lanes;
  const teams = threads / team;
  // A group with scales has no more columns for a thread.
  const atOnce = scaled ? Math.min(unroll, 32 / columnStep) : unroll;
  const rounds = (line: (k: number) => string) => Array.from({ length: atOnce }, (_, k) => line(k)).join("\n    ");

  const { rows: factors, range } = byHalves ? format.halves! : { rows, range: 1 };
  const numbers = byHalves ? "vec4<f16>" : "vec4<f32>";
  /** Adds the rows of the unit `u` times x to `into0 …`. */
  const addUnit = (into: string, x: string) =>
    `{ let by = ${byHalves ? `vec4<f16>(f16(${x} * ${1 / range}))` : `vec4<f32>(${x})`}; ${factors.map((row, i) => `${into}${i} = fma(${row}, by, ${into}${i});`).join(" ")} }`;

  /**
   * Adds columns `begin, begin + step … < end` of the list (or of the slice) to the accumulators `into0 …`. `start` is the
   * unit of column 0.
   */
  const sum = (into: string, start: string, begin: string, step: number, end: string) => /* wgsl */ `
  for (var e = ${begin}; e < ${end}; e += ${step * atOnce}u) {
    ${rounds((k) =>
      // Past the end: the last column again, times 0, so that all loads of a round are independent.
      k === 0
        ? `let e${k} = e + ${k * step}u; let x${k} = value(e${k}, xStart);`
        : `let e${k} = min(e + ${k * step}u, ${end} - 1u); let x${k} = select(0.0, value(e${k}, xStart), e + ${k * step}u < ${end});`,
    )}
    ${rounds((k) => `let u${k} = units[${start} + unitOf(e${k}, width)];`)}
    ${rounds((k) => `{ let u = u${k}; ${addUnit(into, `x${k}`)} }`)}
  }`;

  const scaleUnits = Array.from({ length: unitRows / 8 }, (_, i) => i);
  /** Of group `g` of the slice the scales, as `s0 …`. */
  const loadScales = (g: string, prefix = "s") => /* wgsl */ `
    let scalesOf${prefix} = ${at.units} + tileInChunk * tileUnits(p.groups) + (firstGroup + ${g}) * groupUnits(width) + lane * ${unitRows / 8}u;
    ${scaleUnits.map((i) => `let ${prefix}${i} = units[scalesOf${prefix} + ${i}u];`).join("\n    ")}`;
  const scales = byHalves ? scaleRows({ unitRows, steps: rows.map(() => `${range}.0`) }) : scaleRows(format);
  const addScaled = scales
    .map((scale, i) => `acc${i} = fma(${scale}, ${byHalves ? `vec4<f32>(part${i}).xzyw` : `part${i}`}, acc${i});`)
    .join("\n    ");

  const sparseGroups = /* wgsl */ `
  for (var g = t / ${team}u; g < groupCount; g += ${teams}u) {
    let end = g * 32u + countOneBits(maskOf(g));
    if (g * 32u == end) { continue; }
    ${loadScales("g")}
    let start = base + columnUnit(width, firstGroup + g, 0u);
    let xStart = 0u;
    ${each((i) => `var part${i} = ${numbers}();`)}
    ${sum("part", "start", `g * 32u + t % ${team}u / LANES`, columnStep, "end")}
    ${addScaled}
  }`;

  const groupsAtOnce = Math.max(1, unroll / atOnce);
  const list = (count: number, line: (i: number) => string) =>
    Array.from({ length: count }, (_, i) => line(i)).join("\n    ");
  const denseGroups = /* wgsl */ `
  for (var g = t / ${team}u; g < groupCount; g += ${teams * groupsAtOnce}u) {
    ${list(groupsAtOnce, (j) => `let g${j} = min(g + ${j * teams}u, groupCount - 1u);`)}
    ${list(groupsAtOnce, (j) => loadScales(`g${j}`, `scale${j}_`))}
    for (var k = t % ${team}u / LANES; k < 32u; k += ${columnStep * atOnce}u) {
      ${list(groupsAtOnce * atOnce, (n) => {
        const [j, k] = [Math.floor(n / atOnce), n % atOnce];
        return `let u${j}_${k} = units[base + columnUnit(width, firstGroup + g${j}, k + ${k * columnStep}u)];`;
      })}
      ${list(groupsAtOnce * atOnce, (n) => {
        const [j, k] = [Math.floor(n / atOnce), n % atOnce];
        const x = `value(k + ${k * columnStep}u, firstColumn + g${j} * 32u)`;
        return `let x${j}_${k} = ${j === 0 ? x : `select(0.0, ${x}, g + ${j * teams}u < groupCount)`};`;
      })}
      ${list(
        groupsAtOnce,
        (j) => `{
        ${each((i) => `var part${i} = ${numbers}();`)}
        ${list(atOnce, (k) => `{ let u = u${j}_${k}; ${addUnit("part", `x${j}_${k}`)} }`)}
        ${scaleUnits.map((i) => `let s${i} = scale${j}_${i};`).join(" ")}
        ${addScaled}
      }`,
      )}
    }
  }`;

  const body = scaled
    ? sparse
      ? sparseGroups
      : denseGroups
    : /* wgsl */ `
  let xStart = firstColumn;
  let start = base + columnUnit(width, firstGroup, 0u);
  ${
    sparse
      ? `let end = listStart + kept;
  ${sum("acc", "start", `listStart + within / LANES`, 32 / lanes, "end")}`
      : `let end = groupCount * 32u;
  ${sum("acc", "start", "columnGroup", columnGroups, "end")}`
  }`;

  const poolLength = Math.max(sums.poolLength, listed ? listLength(sparseColumns) : 0);

  return {
    name: `matvec ${format.format.id} ${tileRows} ${threads} ${unroll} ${groupsAside} ${subgroups32} ${joinBySubgroups}${byHalves ? " halves" : ""}${sparse ? ` sparse ${sparseColumns}` : ""}${input === "plain" ? "" : ` ${input}`}`,
    enable: [...(byHalves ? ["f16"] : []), ...(subgroups32 ? ["subgroups"] : [])],
    tableLength: 2 * matvecParts,
    code: /* wgsl */ `
${tileFunctions(format)}
const THREADS = ${threads}u;
const LANES = ${lanes}u;
const MAX_TICKETS = ${maxTickets}u;
/** First the lists (unit of the column, bits of x), then the sums of pairs of rows. */
var<workgroup> pool: array<vec2<u32>, ${poolLength}>;
var<workgroup> isLast: u32;
/** What x is multiplied with. */
var<private> inverse: f32;
${at.declare}
${sums.functions}
${inputFunctions(input, at.x)}
${sparse ? listDeclarations(tuning) : listed ? stagedFunctions : denseFunctions}

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  inverse = 1.0;
  ${at.enter}
  ${findPart}
  let tileInChunk = workgroup.x - place0.x;
  let tile = place1.x + tileInChunk;
  let width = tileWidth(place0.z, tile);
  let lane = min(t % LANES, width - 1u);
  let base = ${at.units} + tileInChunk * tileUnits(p.groups) + lane;
  let columnGroup = t / LANES;

  let firstGroup = workgroup.y * p.groupsPerSlice;
  let groupCount = min(p.groupsPerSlice, p.groups - firstGroup);
  let firstColumn = firstGroup * 32u;
  ${sparse ? listActive(format, tuning) : listed ? listAll(tuning) : ""}

  ${each((i) => `var acc${i} = vec4<f32>();`)}
  ${body}
  ${listed ? "workgroupBarrier();" : ""}

  ${sums.store}

  let tileStart = place0.w + tile * TILE_ROWS;
  let tileEnd = place0.w + place0.z;
  for (var pair = t; pair < TILE_ROWS / 2u; pair += THREADS) {
    let total = totalOf(pair);
    let column = tileStart + rowOf(pair);
    for (var i = 0u; i < 2u; i += 1u) {
      if (column + i >= tileEnd) { continue; }
      if (p.slices == 1u) {
        put(column + i, total[i]);
      } else {
        leave(p.exchangeStride * (${at.slice} + workgroup.y) + MAX_TICKETS + column + i, total[i]);
      }
    }
  }
  if (p.slices == 1u) {
    ${at.leave}
    return;
  }

  // All threads have left their numbers before the ticket is taken.
  storageBarrier();
  if (t == 0u) { isLast = select(0u, 1u, comesLast(${at.ticket} + workgroup.x, p.slices)); }
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
  ${at.leave}
}

${exchangeFunctions}

fn put(column: u32, sum: f32) {
  var total = sum;
  ${at.add}
  if (p.accumulate != 0u) { total += outs[${at.out} + column]; }
  outs[${at.out} + column] = total;
  ${at.after}
}`,
  };
};

/** Tickets at the beginning of the exchange buffer: more than a grid has columns. */
export const maxTickets = 65536;

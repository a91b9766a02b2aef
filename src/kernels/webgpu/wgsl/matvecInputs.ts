import type { ActivationFunction } from "../../../core/index.js";
import type { GpuFormat } from "../formats.js";
import { activationFunction } from "./elementwise.js";
import { keepsFunction } from "./keeps.js";

/** What is multiplied: x, or f(x) times a second vector. */
export type MatvecInput = "plain" | ActivationFunction;

/** Marks a part whose inputs another dispatch counts. */
export const notCounted = 0xffffffff;

/** How the inputs of a slice are listed. */
export interface ListTuning {
  /** Whether subgroups have 32 threads, always. */
  subgroups32: boolean;
  /** Threads of a workgroup, a power of two, at least 32. */
  threads: number;
  /** Columns of the largest slice that a workgroup takes whose inputs are listed, a multiple of `threads` and of 32. */
  sparseColumns: number;
}

/** Places for so many columns; see `slot`. */
export const listLength = (columns: number) => columns + columns / 32;

/** `inputAt`: what column c is multiplied with. @param x where x begins */
export const inputFunctions = (input: MatvecInput, x: string) =>
  input === "plain"
    ? `fn inputAt(c: u32) -> f32 { return xs[${x} + c] * inverse; }`
    : /* wgsl */ `
${activationFunction(input)}
fn inputAt(c: u32) -> f32 {
  let activated = f(xs[${x} + c]);
  return select(activated * ups[p.upOffset + c], 0.0, abs(activated) < p.gateThreshold);
}`;

/** The inputs of the slice, in their order; 0 beyond the last column. Threads of several groups read them at once: see `slot`. */
export const listAll = ({ threads, sparseColumns }: ListTuning) => {
  const each = (line: (j: number) => string) =>
    Array.from({ length: Math.ceil(sparseColumns / threads) }, (_, j) => line(j)).join("\n  ");
  // All are on their way before the first is used.
  return /* wgsl */ `
  sliceStart = firstColumn;
  ${each((j) => `let c${j} = t + ${j * threads}u; let x${j} = inputAt(min(firstColumn + c${j}, p.cols - 1u));`)}
  ${each(
    (j) =>
      `if (c${j} < groupCount * 32u) { pool[slot(c${j})].y = bitcast<u32>(select(0.0, x${j}, firstColumn + c${j} < p.cols)); }`,
  )}
  workgroupBarrier();`;
};

export const stagedFunctions = /* wgsl */ `
var<private> sliceStart: u32;
/** Groups lie 33 apart, in other banks. */
fn slot(c: u32) -> u32 { return c + c / 32u; }
fn unitOf(e: u32, width: u32) -> u32 { return e * width; }
fn value(e: u32, xStart: u32) -> f32 { return bitcast<f32>(pool[slot(xStart - sliceStart + e)].y); }`;

export const denseFunctions = /* wgsl */ `
fn unitOf(e: u32, width: u32) -> u32 { return e * width; }
fn value(e: u32, xStart: u32) -> f32 {
  let c = xStart + e;
  return select(0.0, inputAt(min(c, p.cols - 1u)), c < p.cols);
}`;

export const listDeclarations = ({ sparseColumns, subgroups32 }: ListTuning) => /* wgsl */ `${keepsFunction}
/** One bit per column of a group: its |x| exceeds the threshold. */
var<workgroup> masks: array<${subgroups32 ? "u32" : "atomic<u32>"}, ${sparseColumns / 32}>;
fn unitOf(e: u32, width: u32) -> u32 { return pool[e].x; }
fn value(e: u32, xStart: u32) -> f32 { return bitcast<f32>(pool[e].y); }
fn maskOf(g: u32) -> u32 { return ${subgroups32 ? "masks[g]" : "atomicLoad(&masks[g])"}; }`;

/**
 * Lists the active columns of the slice in `pool`. Every 32 threads look at several groups of 32 columns: at consecutive
 * ones, listed from `listStart` on without a gap, `kept` of them; or with scales at groups apart, each listed by itself.
 */
export const listActive = ({ scaled }: GpuFormat, { threads, sparseColumns, subgroups32 }: ListTuning) => {
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
  ${each((j) => `let active${j} = ${scaled ? "" : `${j}u < share && `}c${j} < sliceEnd && keeps(x${j}, threshold);`)}
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

import { kernel, read, readWrite } from "../kernel.js";

/** Below this many workgroups the keys are cut into runs. */
export const wantedWorkgroups = ({ isSoftware }: { isSoftware: boolean }): number => (isSoftware ? 8 : 256);

/** Fewer keys than this are not worth a run of their own. */
export const minimumRun = 32;

/** Most runs of keys. */
export const mostRuns = 256;

/** Sums that are on their way at once. */
const mergeUnroll = 8;

/** How the workgroup that joins runs reads what they left: the state of a run at `at`, and sums, some at once. */
interface LeftRuns {
  readonly state: (at: string) => string;
  /** `sum0 …` of runs `s, s + 1 …`, as many as there are, at `sumAt0 …`. */
  readonly sums: readonly ((i: number) => string)[];
}

export const takenRuns: LeftRuns = {
  state: (at) => `arrived(atomicExchange(&exchange[p.statesAt + ${at}], 0u), p.statesAt + ${at})`,
  // Runs beyond the last have nothing to wait for.
  sums: [
    (i) =>
      `var taken${i} = 0x80000000u; if (s + ${i}u < p.runs) { taken${i} = atomicExchange(&exchange[p.sumsAt + sumAt${i}], 0u); }`,
    (i) => `let sum${i} = arrived(taken${i}, p.sumsAt + sumAt${i});`,
  ],
};

const readRuns: LeftRuns = {
  state: (at) => `states[${at}]`,
  sums: [(i) => `let sum${i} = sums[sumAt${i}];`],
};

/** `mergeRow` joins the runs of one of `rows` rows (a token and a query head), a workgroup by `VALUE_DIM` columns. */
export const mergeRow = (threads: number, left: LeftRuns) => /* wgsl */ `
/** Of every run its maximum, later its weight; and its sum of exp(score − maximum). */
var<workgroup> runWeights: array<f32, ${mostRuns}>;
var<workgroup> runLengths: array<f32, ${mostRuns}>;
fn mergeRow(row: u32, rows: u32, out: u32, t: u32) {
  for (var s = t; s < p.runs; s += ${threads}u) {
    let at = 2u * (s * rows + row);
    runWeights[s] = ${left.state("at")};
    runLengths[s] = ${left.state("at + 1u")};
  }
  workgroupBarrier();
  var highest = runWeights[0];
  for (var s = 1u; s < p.runs; s += 1u) { highest = max(highest, runWeights[s]); }
  workgroupBarrier();
  for (var s = t; s < p.runs; s += ${threads}u) { runWeights[s] = exp(runWeights[s] - highest); }
  workgroupBarrier();
  var length = 0.0;
  for (var s = 0u; s < p.runs; s += 1u) { length = fma(runWeights[s], runLengths[s], length); }
  for (var d = t; d < VALUE_DIM; d += ${threads}u) {
    var sum = 0.0;
    for (var s = 0u; s < p.runs; s += ${mergeUnroll}u) {
      ${mergeRounds((i) => `let sumAt${i} = (min(s + ${i}u, p.runs - 1u) * rows + row) * VALUE_DIM + d;`)}
      ${left.sums.map(mergeRounds).join("\n      ")}
      ${mergeRounds((i) => `sum = fma(select(0.0, runWeights[min(s + ${i}u, p.runs - 1u)], s + ${i}u < p.runs), sum${i}, sum);`)}
    }
    outs[out + d] = select(sum / length, 0.0, length == 0.0);
  }
  workgroupBarrier();
}`;

const mergeThreads = 64;

/** Joins runs that stay apart; one workgroup per token and head. */
export const attentionMerge = (valueDim: number) =>
  kernel({
    name: `attentionMerge ${valueDim}`,
    params: { heads: "u32", tokens: "u32", runs: "u32", outOffset: "u32", outStride: "u32" },
    buffers: { outs: readWrite(), sums: read(), states: read() },
    code: /* wgsl */ `
const VALUE_DIM = ${valueDim}u;
${mergeRow(mergeThreads, readRuns)}
@compute @workgroup_size(${mergeThreads})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let out = p.outOffset + workgroup.y * p.outStride + workgroup.x * VALUE_DIM;
  mergeRow(workgroup.y * p.heads + workgroup.x, p.tokens * p.heads, out, t);
}`,
  });

function mergeRounds(line: (i: number) => string): string {
  return Array.from({ length: mergeUnroll }, (_, i) => line(i)).join("\n      ");
}

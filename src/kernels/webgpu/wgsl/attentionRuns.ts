import { kernel, read, readWrite } from "../kernel.js";

/** Below this many workgroups the keys are cut into runs. */
export const wantedWorkgroups = ({ isSoftware }: { isSoftware: boolean }): number => (isSoftware ? 8 : 256);

/** Fewer keys than this are not worth a run of their own. */
export const minimumRun = 32;

/** Most runs of keys. */
export const mostRuns = 256;

/**
 * About as many keys as there are in each of `wantedRuns` runs, in whole rounds: a round of few keys takes as long as a full
 * one. Rather more runs than wanted, if they are not too many to be joined.
 */
export function wholeRounds(keys: number, wantedRuns: number, keysOfRound: number): number {
  const rounds = Math.ceil(keys / wantedRuns) / keysOfRound;
  const fewer = Math.floor(rounds) * keysOfRound;
  return keys <= fewer * mostRuns ? fewer : Math.ceil(rounds) * keysOfRound;
}

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

/**
 * `mergeRow` joins the runs of one of `rows` rows (a token and a query head), a workgroup by `VALUE_DIM` columns; or of
 * `together` of them that follow one another, at once.
 */
export const mergeRow = (threads: number, left: LeftRuns, together = 1) => {
  const pitch = pitchOf(together);
  const ofRuns = (line: string) =>
    `for (var e = t; e < p.runs * ${pitch}u; e += ${threads}u) { ${pitch === together ? line : `if (e % ${pitch}u < ${together}u) { ${line} }`} }`;
  return /* wgsl */ `
/** Of every run, for each row, its maximum, later its weight; and its sum of exp(score − maximum). */
var<workgroup> runWeights: array<f32, ${mostRuns * pitch}>;
var<workgroup> runLengths: array<f32, ${mostRuns * pitch}>;
fn mergeRow(row: u32, rows: u32, out: u32, t: u32) {
  ${ofRuns(`
    let at = 2u * (e / ${pitch}u * rows + row + e % ${pitch}u);
    runWeights[e] = ${left.state("at")};
    runLengths[e] = ${left.state("at + 1u")};
  `)}
  workgroupBarrier();
  let own = t % ${pitch}u;
  var highest = runWeights[own];
  for (var s = 1u; s < p.runs; s += 1u) { highest = max(highest, runWeights[s * ${pitch}u + own]); }
  workgroupBarrier();
  ${ofRuns("runWeights[e] = exp(runWeights[e] - highest);")}
  workgroupBarrier();
  for (var d = t; d < ${together}u * VALUE_DIM; d += ${threads}u) {
    let r = d / VALUE_DIM;
    var length = 0.0;
    for (var s = 0u; s < p.runs; s += 1u) { length = fma(runWeights[s * ${pitch}u + r], runLengths[s * ${pitch}u + r], length); }
    var sum = 0.0;
    for (var s = 0u; s < p.runs; s += ${mergeUnroll}u) {
      ${mergeRounds((i) => `let s${i} = min(s + ${i}u, p.runs - 1u); let sumAt${i} = (s${i} * rows + row) * VALUE_DIM + d;`)}
      ${left.sums.map(mergeRounds).join("\n      ")}
      ${mergeRounds((i) => `sum = fma(select(0.0, runWeights[s${i} * ${pitch}u + r], s + ${i}u < p.runs), sum${i}, sum);`)}
    }
    outs[out + d] = select(sum / length, 0.0, length == 0.0);
  }
  workgroupBarrier();
}`;
};

/** Places for the rows of one run: a power of two, as threads are, so that each thread comes to one row only. */
const pitchOf = (rows: number) => 2 ** Math.ceil(Math.log2(rows));

/** Bytes of workgroup memory that `mergeRow` takes. */
export const mergeBytes = (together: number): number => 8 * mostRuns * pitchOf(together);

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

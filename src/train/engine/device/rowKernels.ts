import { kernel, read, readWrite } from "../../../kernels/internal.js";
import { addTerms } from "./sums.js";

/** Sums of `threads` threads; every thread gets the total. `work` is the name of the workgroup array. */
const reduction = (threads: number, name: string, combine: (a: string, b: string) => string) => /* wgsl */ `
fn ${name}(t: u32, value: f32) -> f32 {
  workgroupBarrier();
  shares[t] = value;
  workgroupBarrier();
  for (var reach = ${threads / 2}u; reach > 0u; reach /= 2u) {
    if (t < reach) { shares[t] = ${combine("shares[t]", "shares[t + reach]")}; }
    workgroupBarrier();
  }
  return shares[0];
}`;
export const total = (threads: number) => reduction(threads, "total", (a, b) => `${a} + ${b}`);
const largest = (threads: number) => reduction(threads, "largest", (a, b) => `max(${a}, ${b})`);

export const rowThreads = 64;
export const begin = (threads: number) => /* wgsl */ `
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) t: u32)`;
export const shares = (threads: number) => `var<workgroup> shares: array<f32, ${threads}>;`;

/** Workgroups along one axis of a grid that every device takes. */
const acrossRows = 32_768;
/** A workgroup for each of so many rows. */
export const gridOfRows = (count: number): [number, number] => [
  Math.min(count, acrossRows),
  Math.ceil(count / acrossRows),
];
/** Which row a workgroup of such a grid has. */
export const rowOfGrid = `workgroup.x + workgroup.y * ${acrossRows}u`;

/** Σ over a part of the rows, dL/db of a bias: f32 [parts, width]. */
export const columnSums = kernel({
  name: "train column sums",
  params: { width: "u32", rows: "u32", rowsPerPart: "u32" },
  buffers: { parts: readWrite(), outer: read() },
  code: /* wgsl */ `
${begin(rowThreads)} {
  let column = workgroup.x * ${rowThreads}u + t;
  if (column >= p.width) { return; }
  var sum = 0.0;
  let first = workgroup.y * p.rowsPerPart;
  let end = min(first + p.rowsPerPart, p.rows);
  ${addTerms("sum", "first", "end", (row) => `outer[${row} * p.width + column]`)}
  parts[workgroup.y * p.width + column] = sum;
}`,
});

/** Row i of each matrix of scores, of which columns [first, end) are seen; the others become 0. Grid: [positions, matrices]. */
const rowOfScores = /* wgsl */ `
  let i = workgroup.x;
  let row = (workgroup.y * p.positions + i) * p.positions;`;
/** Columns (i − window, i]. */
const causalRow = /* wgsl */ `${rowOfScores}
  let first = i + 1u - min(i + 1u, p.window);
  let end = i + 1u;`;
const wholeRow = /* wgsl */ `${rowOfScores}
  let first = 0u;
  let end = p.positions;`;

/** @param score of column j */
const softmaxCode = (seen: string, score: string) => /* wgsl */ `
${shares(rowThreads)}
${total(rowThreads)}
${largest(rowThreads)}
${begin(rowThreads)} {
  ${seen}
  var top = -3.0e38;
  for (var j = first + t; j < end; j += ${rowThreads}u) { top = max(top, ${score}); }
  top = largest(t, top);
  var sum = 0.0;
  for (var j = first + t; j < end; j += ${rowThreads}u) { sum += exp(${score} - top); }
  let scale = 1.0 / total(t, sum);
  for (var j = t; j < p.positions; j += ${rowThreads}u) {
    if (j >= first && j < end) { scores[row + j] = exp(${score} - top) * scale; } else { scores[row + j] = 0.0; }
  }
}`;

const softmaxBackwardCode = (seen: string) => /* wgsl */ `
${shares(rowThreads)}
${total(rowThreads)}
${begin(rowThreads)} {
  ${seen}
  var dot = 0.0;
  for (var j = first + t; j < end; j += ${rowThreads}u) { dot += gradient[row + j] * weights[row + j]; }
  let mean = total(t, dot);
  for (var j = t; j < p.positions; j += ${rowThreads}u) {
    if (j >= first && j < end) { gradient[row + j] = weights[row + j] * (gradient[row + j] - mean); } else { gradient[row + j] = 0.0; }
  }
}`;

export const causalSoftmax = kernel({
  name: "train causal softmax",
  params: { positions: "u32", window: "u32" },
  buffers: { scores: readWrite() },
  code: softmaxCode(causalRow, "scores[row + j]"),
});

export const wholeSoftmax = kernel({
  name: "train whole softmax",
  params: { positions: "u32" },
  buffers: { scores: readWrite() },
  code: softmaxCode(wholeRow, "scores[row + j]"),
});

/** Of a text whose filling, token 0, no position sees. */
export const paddedSoftmax = kernel({
  name: "train padded softmax",
  params: { positions: "u32", heads: "u32" },
  buffers: { scores: readWrite(), tokens: read("u32") },
  code: softmaxCode(
    `${wholeRow}
  let text = workgroup.y / p.heads * p.positions;`,
    "(scores[row + j] + select(0.0, -1.0e9, tokens[text + j] == 0u))",
  ),
});

/** In place of dL/dP: dL/dS = P ∘ (dP − Σ P ∘ dP). */
export const causalSoftmaxBackward = kernel({
  name: "train causal softmax backward",
  params: { positions: "u32", window: "u32" },
  buffers: { gradient: readWrite(), weights: read() },
  code: softmaxBackwardCode(causalRow),
});

export const softmaxBackward = kernel({
  name: "train softmax backward",
  params: { positions: "u32" },
  buffers: { gradient: readWrite(), weights: read() },
  code: softmaxBackwardCode(wholeRow),
});

export const vocabularyThreads = 256;
/** Reductions over a row of a vocabulary. */
export const vocabularyTotals = `${shares(vocabularyThreads)}${total(vocabularyThreads)}${largest(vocabularyThreads)}`;
/** Every class i of a row, the threads side by side. */
export const eachClass = (body: string) => /* wgsl */ `
  for (var i = t; i < p.classes; i += ${vocabularyThreads}u) { ${body} }`;

/**
 * Begins a kernel over rows of logits, `stride` apart, in the place of their gradient: top and sum of the exponentials of a row, and its
 * loss −log softmax(logits)[label]. A row whose label is below 0 counts for nothing.
 */
export const beginLoss = (unlearnt: string) => /* wgsl */ `
${begin(vocabularyThreads)} {
  let rowNumber = ${rowOfGrid};
  if (rowNumber >= p.rows) { return; }
  let row = rowNumber * p.stride;
  let label = labels[rowNumber];
  if (label > 0x7fffffffu) {
    ${eachClass("logits[row + i] = 0.0;")}
    if (t == 0u) { losses[p.lossOffset + rowNumber] = 0.0; ${unlearnt} }
    return;
  }
  let wanted = logits[row + label];
  var top = -3.0e38;
  ${eachClass("top = max(top, logits[row + i]);")}
  top = largest(t, top);
  var sum = 0.0;
  ${eachClass("sum += exp(logits[row + i] - top);")}
  sum = total(t, sum);
  let loss = log(sum) + top - wanted;`;

/** losses[row] = −log softmax(logits)[label]; logits become the gradient of the mean over the `known` rows that count, (softmax − 1[label]) / known. */
export const crossEntropy = kernel({
  name: "train cross entropy",
  params: { classes: "u32", stride: "u32", rows: "u32", known: "u32", lossOffset: "u32" },
  buffers: { logits: readWrite(), losses: readWrite(), labels: read("u32") },
  code: /* wgsl */ `
${vocabularyTotals}
${beginLoss("")}
  let scale = 1.0 / (sum * f32(p.known));
  ${eachClass("logits[row + i] = exp(logits[row + i] - top) * scale - select(0.0, 1.0 / f32(p.known), i == label);")}
  if (t == 0u) { losses[p.lossOffset + rowNumber] = loss; }
}`,
});

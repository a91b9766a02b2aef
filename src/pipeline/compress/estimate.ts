import { findStep, linearsOf } from "../../arch/index.js";
import { inputsOf } from "../../arch/internal.js";
import { lowRankMethods, pruneMethods, quantizeMethods } from "../../compress/index.js";
import type { Checkpoint } from "../../io/index.js";
import type { Backend } from "../../kernels/index.js";
import { byteLengthOf, dtypeBytes, elementCount } from "../../tensor/index.js";
import type { TextWindows } from "../gradients.js";
import { loadBlock } from "./block.js";
import { loadable } from "./blockSource.js";
import { CalibrationRun } from "./calibrationRun.js";
import {
  type CompressionPlan,
  type CompressOptions,
  differentiates,
  type Estimate,
  masksByGradients,
  type PlannedStage,
} from "./planned.js";

/** Multiply-adds that plain TypeScript does in a millisecond, in f64. */
const hostSpeed = 1e6;
/** As many multiply-adds as reading, choosing and writing a weight take. */
const workPerWeight = 60;
/** Forward passes on the backend that take as long as forward and backward of the autograd engine. */
const gradientPasses = 8;
/** Passes of the singular value decomposition over a matrix. */
const svdPasses = 12;
/** The runtime with its code and the tokenizer. */
const baseBytes = 200e6;

export async function estimateJob(
  checkpoint: Checkpoint,
  plan: Omit<CompressionPlan, "estimate">,
  backend: Backend | undefined,
  options: CompressOptions,
): Promise<Estimate> {
  const { description, stages, layers, windows } = plan;
  const { config } = description;
  const { spec } = config;
  const [block] = spec.blocks;
  const linears = linearsOf(block).map(({ rows, cols }) => [rows, cols] as const);
  const blockWeights = linears.reduce((sum, shape) => sum + elementCount(shape), 0);
  // What experts share by their norm is known of each of them by itself.
  const widths = inputsOf(block).flatMap(({ readers }) => [
    ...new Map(readers.map(({ map, expert }) => [expert, map.cols])).values(),
  ]);
  const gramEntries = widths.reduce((sum, width) => sum + width ** 2, 0);
  const grams = stages.some(({ statistics }) => statistics.includes("gram"));

  let elapsedMs = 0;
  for (const stage of stages) elapsedMs += (await hostWork(stage, linears)) / hostSpeed;
  elapsedMs += (blockWeights * workPerWeight) / hostSpeed;
  elapsedMs *= layers;
  let streamBytes = 0;
  const readsGradients = differentiates(stages) || masksByGradients(stages);
  if (windows !== undefined && backend !== undefined) {
    const count = windows.tokens.length / windows.window;
    const { collectMs, advanceMs } = await timeOneWindow(checkpoint, plan, windows, backend, options);
    const collections = stages.filter(({ statistics }) => statistics.length > 0).length;
    elapsedMs += layers * count * (collections * collectMs + advanceMs);
    streamBytes = count * windows.window * config.hiddenSize * 4;
    if (readsGradients) {
      elapsedMs += config.layers * count * gradientPasses * advanceMs;
      // What enters every block is kept until its gradients are known.
      streamBytes *= config.layers + 2;
    }
  }

  const window = windows?.window ?? 0;
  const activationBytes =
    window *
    (3 * config.hiddenSize + 4 * config.intermediateSize * (findStep(block, "mixture")?.router.perToken ?? 1)) *
    4;
  const memoryBytes =
    baseBytes + streamBytes + activationBytes + blockWeights * 4 * 5 + (grams ? gramEntries * (4 + 4 + 8 * 4) : 0);
  let diskBytes = 0;
  for (const info of checkpoint.tensors.values()) {
    const isMatrix = info.shape.length === 2 && options.dtype !== undefined;
    diskBytes += isMatrix ? elementCount(info.shape) * dtypeBytes[options.dtype!] : byteLengthOf(info);
  }
  if (differentiates(stages)) diskBytes += config.layers * blockWeights * 4;
  return { elapsedMs, memoryBytes, diskBytes };
}

/** Multiply-adds on the host for one block. */
async function hostWork({ stage, options }: PlannedStage, linears: readonly (readonly number[])[]): Promise<number> {
  if (stage.type === "lowRank") {
    const { method } = await lowRankMethods[stage.method]();
    const svd = linears.reduce((sum, [rows, cols]) => sum + svdPasses * rows * cols * Math.min(rows, cols), 0);
    const whitening = linears.reduce((sum, [rows, cols]) => sum + rows * cols * cols, 0);
    return svd + (method.needs(options).includes("gram") ? whitening : 0);
  }
  if (stage.type !== "prune" && stage.type !== "quantize") return 0;
  const { method } = await (stage.type === "prune" ? pruneMethods : quantizeMethods)[stage.method]();
  if (method.multiplyAdds !== undefined) {
    return linears.reduce((sum, [rows, cols]) => sum + method.multiplyAdds!({ rows, cols }, options), 0);
  }
  if (!method.needs(options).includes("gram")) return 0;
  const solve = linears.reduce((sum, [rows, cols]) => sum + rows * cols * cols, 0);
  const factor = linears.reduce((sum, [, cols]) => Math.max(sum, cols ** 3), 0);
  return solve + 2 * factor;
}

/** Milliseconds of one window through the first block, with the statistics that the stages want and without. */
async function timeOneWindow(
  checkpoint: Checkpoint,
  { description, stages }: Omit<CompressionPlan, "estimate">,
  { tokens, window }: TextWindows,
  backend: Backend,
  { signal }: CompressOptions,
) {
  // Twice the same: what the first one takes for loading and compiling is not paid again.
  const twice = new Uint32Array(2 * window);
  for (const start of [0, window]) twice.set(tokens.subarray(0, window), start);
  let marks: number[] = [];
  const { config } = description;
  const run = await CalibrationRun.start(
    checkpoint,
    config.spec,
    backend,
    { tokens: twice, window },
    { signal, onWindow: () => marks.push(performance.now()) },
  );
  const block = loadable(checkpoint.location, await loadBlock(checkpoint, config, 0), config.spec.blocks[0]);
  const timed = async (work: () => Promise<unknown>) => {
    marks = [];
    await work();
    return marks[1] - marks[0];
  };
  const wanted = [...new Set(stages.flatMap(({ statistics }) => statistics))];
  const advanceMs = await timed(() => run.advance(block));
  const collectMs = wanted.length === 0 ? 0 : await timed(() => run.collect(block, wanted));
  return { collectMs, advanceMs };
}

import type { LinearSpec, LinearStep } from "../../arch/index.js";
import type { Activation, Matrix, Region, Vector } from "../../kernels/index.js";
import { bufferOf, type Operation, type Pass, watch } from "../pass.js";
import { linearStack, type WholeStack } from "../stack.js";
import type { HeldStream, Offload } from "./offload.js";

/** A linear step whose weights are read as they are needed. */
export interface OffloadedStep {
  readonly offload: () => Offload;
  /** f32 [rows of all maps] */
  readonly bias: Vector | undefined;
  /** The map of the step that stays in memory, if one does: of neurons the gate, and `down` where all of them do. */
  readonly kept: { readonly map: LinearSpec; readonly matrix: Matrix } | undefined;
  /** Loads maps for a pass over many rows; disposing of the region gives them back. */
  readonly loadStack: (
    maps: readonly LinearSpec[],
  ) => Promise<{ region: Region; stack: WholeStack; readBytes: number }>;
}

/** Every input counts, zeros included. */
const all = -1;

/** out = x·Wᵀ (+ bias) (+ out), as `linear` has it: one row by the units that it needs, more with whole matrices, one step at a time. */
export const offloadedLinear =
  (step: LinearStep, weights: OffloadedStep): Operation =>
  (pass) =>
    watch(pass, step.site, step.of, () => {
      const offload = weights.offload();
      const held = offload.of(step)!;
      return pass.x.rows === 1
        ? multiplyRow(pass, step, weights, offload, held)
        : multiplyRows(pass, step, weights, offload);
    });

const outputOf = (pass: Pass, { maps }: LinearStep): Activation =>
  maps.length === 1 ? bufferOf(pass, maps[0].into) : pass.buffers.together(maps.map(({ into }) => into))!;

async function multiplyRow(
  pass: Pass,
  step: LinearStep,
  { bias, kept }: OffloadedStep,
  offload: Offload,
  held: HeldStream,
): Promise<void> {
  const x = bufferOf(pass, step.of);
  const { mlp, of } = held.stream;
  const given = pass.sparseFromRow <= 0 ? pass.thresholds?.linear.get(step) : undefined;
  if (of === "neurons" && step === mlp.first) return multiplyNeurons(pass, offload, held, given);
  // Hidden values of neurons that were not multiplied are 0, and have no columns.
  const dense = of === "neurons" ? 0 : all;
  const thresholds = given ?? step.maps.map(() => dense);
  const options = { bias, accumulate: step.add ?? false };
  if (kept !== undefined) {
    pass.backend.linear(outputOf(pass, step), x, kept.matrix, { ...options, thresholds });
    return;
  }
  await offload.multiplyColumns(held, { out: outputOf(pass, step), x, thresholds, options });
}

/** gate = x · its rows, up = x · the rows of neurons whose gate is open; of predicted neurons alone where there are predictors. */
async function multiplyNeurons(
  pass: Pass,
  offload: Offload,
  held: HeldStream,
  given: readonly number[] | undefined,
): Promise<void> {
  const { backend } = pass;
  const { mlp, units } = held.stream;
  const x = bufferOf(pass, mlp.first.of);
  const thresholdOf = (map: LinearSpec) => given?.[mlp.first.maps.findIndex((one) => one.map === map)];
  const gate = bufferOf(pass, mlp.activate.of);
  const threshold = thresholdOf(mlp.gate);
  let predicted: Uint32Array | undefined;
  if (offload.gates.has(mlp.layer)) {
    backend.linear(gate, x, offload.gates.get(mlp.layer)!, threshold === undefined ? {} : { thresholds: [threshold] });
  } else {
    const scores = isPredicted(pass, 0) ? await scoresOf(pass, offload, held) : undefined;
    predicted = Uint32Array.from({ length: units }, (_, neuron) => neuron);
    if (scores !== undefined) predicted = predicted.filter((neuron) => scores[neuron] > offload.options.predict!);
    const product = { out: gate, x, threshold: threshold ?? all, ticks: true };
    await offload.multiplyRows(held, "gate", predicted, product);
  }
  if (mlp.up === undefined) return;
  const out = bufferOf(pass, mlp.activate.times!);
  if (offload.holdsEverything) {
    offload.multiplyOpenRows(held, { out, x, gate, threshold: thresholdOf(mlp.up) ?? all });
    return;
  }
  const values = await backend.read(gate);
  offload.checkOpen();
  // A NaN is open: it must show.
  const open = Uint32Array.from(values.keys()).filter((neuron) => !(values[neuron] <= 0));
  const ticks = predicted === undefined;
  await offload.multiplyRows(held, "up", open, { out, x, threshold: thresholdOf(mlp.up) ?? all, ticks });
}

/** Whether a row of a pass is one of those that run sparse. */
const isPredicted = ({ thresholds, sparseFromRow }: Pass, row: number): boolean =>
  thresholds !== undefined && row >= sparseFromRow;

/** Scores of the neurons of a layer, f32 [rows, neurons]; those of the next layer are made at once where they are looked ahead for. */
async function scoresOf(pass: Pass, offload: Offload, held: HeldStream): Promise<Float32Array> {
  const { layer } = pass;
  const known = offload.ahead.get(layer);
  offload.ahead.clear();
  const scores = known?.length === pass.x.rows * held.stream.units ? known : await predict(pass, offload, layer, held);
  const next = offload.held.find(({ stream }) => stream.mlp.layer === layer + 1);
  if (next !== undefined && offload.predictors![layer + 1].ahead) {
    const ahead = await predict(pass, offload, layer + 1, held);
    offload.ahead.set(layer + 1, ahead);
    if (pass.x.rows === 1) {
      const expected = Uint32Array.from(ahead.keys()).filter((neuron) => ahead[neuron] > offload.options.predict!);
      offload.prefetch(next, expected);
    }
  }
  return scores;
}

/** What the predictor of a layer makes of what enters the MLP of another. */
async function predict(pass: Pass, offload: Offload, layer: number, { stream }: HeldStream): Promise<Float32Array> {
  const { backend } = pass;
  const x = bufferOf(pass, stream.mlp.first.of);
  const { down, up, bias } = offload.predictors![layer];
  const between = backend.allocate(x.rows, down.rows);
  const scores = backend.allocate(x.rows, up.rows);
  try {
    backend.linear(between, x, down);
    backend.linear(scores, between, up, { bias });
    return await backend.read(scores);
  } finally {
    for (const one of [between, scores]) backend.release(one);
  }
}

/** Closes the gates of neurons that were not predicted, in the rows that run sparse. */
async function closeUnpredicted(pass: Pass, offload: Offload, held: HeldStream): Promise<void> {
  const { backend } = pass;
  const gate = bufferOf(pass, held.stream.mlp.activate.of);
  const scores = await scoresOf(pass, offload, held);
  const values = await backend.read(gate);
  for (let row = Math.max(0, pass.sparseFromRow); row < gate.rows; row++) {
    for (let at = row * gate.cols; at < (row + 1) * gate.cols; at++) {
      if (!(scores[at] > offload.options.predict!)) values[at] = 0;
    }
  }
  backend.write(gate, values);
}

async function multiplyRows(
  pass: Pass,
  step: LinearStep,
  { bias, kept, loadStack }: OffloadedStep,
  offload: Offload,
): Promise<void> {
  const { backend } = pass;
  const x = bufferOf(pass, step.of);
  const given = pass.thresholds?.linear.get(step);
  const { sparseFromRow } = pass;
  const multiply = (out: Activation, stack: WholeStack, maps: LinearStep["maps"]) =>
    linearStack(backend, out, x, stack, undefined, {
      thresholds: given && maps.map((one) => given[step.maps.indexOf(one)]),
      sparseFromRow,
      ...(step.add && { accumulate: true }),
    });
  const withBias = (stack: WholeStack) => (bias === undefined ? stack : { ...stack, bias });
  const inMemory = step.maps.filter(({ map }) => map === kept?.map);
  for (const one of inMemory) multiply(bufferOf(pass, one.into), withBias({ matrix: kept!.matrix }), [one]);
  const others = step.maps.filter((one) => !inMemory.includes(one));
  if (others.length === 0) return;
  const sinceMs = performance.now();
  const { region, stack, readBytes } = await loadStack(others.map(({ map }) => map));
  try {
    offload.checkOpen();
    offload.countRead(readBytes, performance.now() - sinceMs);
    const out = others.length === 1 ? bufferOf(pass, others[0].into) : outputOf(pass, step);
    multiply(out, withBias(stack), others);
    await backend.flush();
    offload.checkOpen();
  } finally {
    region[Symbol.dispose]();
  }
  const held = offload.of(step)!;
  const closes = offload.predictors !== undefined && step === held.stream.mlp.first;
  if (closes && isPredicted(pass, pass.x.rows - 1)) await closeUnpredicted(pass, offload, held);
}

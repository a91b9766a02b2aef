import type { BlockSpec, GateSpec } from "../../arch/index.js";
import { gatedWeights, gateEpsilon } from "../../arch/internal.js";
import { aboveZero, binaryCrossEntropy, keysThere, largestOfText, straightThrough, unitRows } from "../engine/gates.js";
import { sigmoid } from "../engine/layers.js";
import { add, divide, mean, multiply, reshape, square, subtract, type Traced } from "../engine/ops.js";
import type { TracedArrays } from "../engine/tracedObjective.js";
import { gateCapacityName, gateTargetName, gateWeightName } from "../models/gateNames.js";
import type { BlockPass, GateRecord, TracedPass } from "./pass.js";
import { traceSteps } from "./steps.js";

/** Traces the steps of a block, each part with a gate only for the tokens that it lets through. */
export function traceGated({ steps, gates = [] }: BlockSpec, block: BlockPass): void {
  let done = 0;
  for (const gate of gates) {
    traceSteps(steps.slice(done, gate.from), block);
    traceBehind(gate, { steps, gates }, block);
    done = gate.to;
  }
  traceSteps(steps.slice(done), block);
}

function traceBehind(gate: GateSpec, whole: BlockSpec, block: BlockPass): void {
  const { pass, buffers } = block;
  const before = buffers.get("x")!;
  const z = pass.whole(unitRows(before, gateEpsilon), gate.map);
  const { open, missed } = openOf(z, gate, pass);
  pass.gates.push({ weights: gatedWeights(whole, gate), share: mean(open), missed });
  const there = gate.kind === "hard" ? keysThere(reshape(open, [pass.sequences, pass.window])) : undefined;
  traceSteps(whole.steps.slice(gate.from, gate.to), { ...block, there });
  const behind = buffers.get("x")!;
  // So put, a gate at 1 or 0 changes no bit of either.
  buffers.set("x", add(multiply(before, subtract(1, open)), multiply(behind, open)));
}

/** [rows, 1]: how much of what the part adds a token gets. */
function openOf(z: Traced, { kind }: GateSpec, { batch, sequences, window }: TracedPass) {
  if (kind === "soft") return { open: sigmoid(z) };
  const capacity = batch[gateCapacityName];
  if (capacity === undefined) return { open: straightThrough(aboveZero(z), z) };
  const wanted = reshape(largestOfText(reshape(z, [sequences, window]), capacity), [sequences * window, 1]);
  return { open: straightThrough(wanted, z), missed: binaryCrossEntropy(z, wanted) };
}

/** The share of the weights behind gates that a token met, on average; undefined without gates. */
export function gateShare(records: readonly GateRecord[]): Traced | undefined {
  if (records.length === 0) return undefined;
  const all = records.reduce((total, { weights }) => total + weights, 0);
  return records.map(({ share, weights }) => multiply(share, weights / all)).reduce(add);
}

/** What gates add to the loss, as the batch asks for. */
export function gatePenalties(records: readonly GateRecord[], batch: TracedArrays): Traced[] {
  const weight = batch[gateWeightName];
  const share = gateShare(records);
  if (weight === undefined || share === undefined) return [];
  const missed = records.flatMap((record) => record.missed ?? []);
  if (missed.length > 0) return [multiply(weight, divide(missed.reduce(add), missed.length))];
  return [multiply(weight, square(subtract(share, batch[gateTargetName])))];
}

import type { ActivateStep, AttendStep, LinearStep, NormStep, RotateStep } from "../arch/index.js";
import type { Activation, AttentionOptions, Backend, LinearOptions, Sight, Vector } from "../kernels/index.js";
import { adaptedInputs, adaptOutputs } from "./adaptStep.js";
import { lowRank } from "./buffers.js";
import { countedInputs } from "./countedInputs.js";
import { bufferOf, eachPart, type Operation, type Pass, type PassPart, rowsOf, watch } from "./pass.js";
import { linearStack, pairWidth, type Stack } from "./stack.js";
import type { LoadedNorm } from "./weights.js";

/** Each kind of step as operations of a backend. */

/** out = norm(x), of either kind. */
export function applyNorm(
  backend: Backend,
  out: Activation,
  x: Activation,
  { kind, epsilon }: NormStep["norm"],
  { weight, bias }: LoadedNorm,
): void {
  if (kind === "rms") backend.rmsNorm(out, x, weight, epsilon);
  else backend.layerNorm(out, x, weight, bias, epsilon);
}

export const norm =
  (step: NormStep, loaded: LoadedNorm): Operation =>
  (pass) =>
    applyNorm(pass.backend, bufferOf(pass, step.into), bufferOf(pass, step.of), step.norm, loaded);

/** The output of a linear step: its one buffer, or all of them side by side. */
const outputOf = (pass: Pass, { maps }: LinearStep): Activation =>
  maps.length === 1 ? bufferOf(pass, maps[0].into) : pass.buffers.together(maps.map(({ into }) => into))!;

export const linear =
  (step: LinearStep, stack: Stack): Operation =>
  (pass) =>
    watch(pass, step.site, step.of, () => multiply(pass, step, stack));

/** Enqueues the products of a linear step. */
export function multiply(pass: Pass, step: LinearStep, stack: Stack, gate?: LinearOptions["gate"]): void {
  const between = pairWidth(stack) > 0 ? pass.buffers.of(lowRank) : undefined;
  const x = bufferOf(pass, step.of);
  const out = outputOf(pass, step);
  const options = {
    thresholds: pass.thresholds?.linear.get(step),
    sparseFromRow: pass.sparseFromRow,
    ...(step.add && { accumulate: true }),
    ...(gate && { gate }),
  };
  const seen = countedInputs(pass, step, adaptedInputs(pass, step, x));
  linearStack(pass.backend, out, seen, stack, between, options);
  adaptOutputs(pass, step, x, out);
}

export const rotate =
  (step: RotateStep): Operation =>
  (pass) => {
    const whole = pass.buffers.together(step.of);
    const turned = whole === undefined ? step.of.map((name) => bufferOf(pass, name)) : [whole];
    for (const part of pass.parts) {
      const table = part.table(step);
      for (const x of turned) pass.backend.rope(rowsOf(x, part), table, part.start);
    }
  };

export function attentionOptions(step: AttendStep, part: PassPart, sinks?: Vector): AttentionOptions {
  const { heads, scale, softcap } = step;
  const sight = part.sight(step);
  return {
    queryHeads: heads,
    scale,
    start: part.slot,
    ...(sight !== undefined && { sight }),
    ...(softcap !== undefined && { softcap }),
    ...(sinks && { sinks }),
  };
}

/** Enqueues that keys and values of the rows of a part go where it keeps them. */
export function append({ backend, layer }: Pass, part: PassPart, k: Activation, v: Activation | undefined): void {
  const { cache, places } = part;
  let row = 0;
  for (const { rows, slot } of places) {
    const of = (x: Activation) => (rows === x.rows ? x : x.rowRange(row, rows));
    backend.appendKv(cache, layer, of(k), v && of(v), slot);
    row += rows;
  }
}

/** Enqueues attention of rows whose keys and values are in the cache, once it is known what it sees. */
export function attendTo(
  { backend, layer, keysOnly }: Pass,
  part: PassPart,
  step: AttendStep,
  { q, out, sinks }: { q: Activation; out: Activation; sinks?: Vector },
): void | Promise<void> {
  if (keysOnly) return;
  const { cache, slot, findSight } = part;
  const options = attentionOptions(step, part, sinks);
  const enqueue = (sight: Sight | undefined) =>
    backend.attention(out, q, cache, layer, sight === undefined ? options : { ...options, sight });
  if (findSight === undefined) return enqueue(undefined);
  return findSight({ layer, q, cache, slot, queryHeads: step.heads, scale: step.scale }).then((sight) => {
    enqueue(sight);
    sight?.[Symbol.dispose]();
  });
}

export const attend =
  (step: AttendStep, sinks: Vector | undefined): Operation =>
  (pass) => {
    const [out, q, k, v] = [step.into, step.q, step.k, step.v].map((name) => bufferOf(pass, name));
    return eachPart(pass, (part) => {
      append(pass, part, rowsOf(k, part), rowsOf(v, part));
      return attendTo(pass, part, step, { q: rowsOf(q, part), out: rowsOf(out, part), sinks });
    });
  };

export const activate =
  (step: ActivateStep): Operation =>
  (pass) =>
    watch(pass, step.site, step.of, () => applyActivation(pass, step));

/** into = f(of) ⊙ times, with the CATS threshold only on the rows from `sparseFromRow` on. */
export function applyActivation(pass: Pass, step: ActivateStep): void {
  const { backend, sparseFromRow: dense } = pass;
  if (step.times === undefined) {
    backend.map(bufferOf(pass, step.into), bufferOf(pass, step.of), step.f);
    return;
  }
  const [out, gate, up] = [step.into, step.of, step.times].map((name) => bufferOf(pass, name));
  const gateThreshold = pass.thresholds?.gates.get(step);
  const { clamped } = step;
  const { rows } = gate;
  if (gateThreshold === undefined || dense === 0 || dense >= rows) {
    backend.gatedActivation(out, gate, up, step.f, { clamped, ...(dense === 0 && { gateThreshold }) });
    return;
  }
  const [denseOut, denseGate, denseUp] = [out, gate, up].map((a) => a.rowRange(0, dense));
  const [sparseOut, sparseGate, sparseUp] = [out, gate, up].map((a) => a.rowRange(dense, rows - dense));
  backend.gatedActivation(denseOut, denseGate, denseUp, step.f, { clamped });
  backend.gatedActivation(sparseOut, sparseGate, sparseUp, step.f, { gateThreshold, clamped });
}

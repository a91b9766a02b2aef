import { activationOf, type BlockSpec, type ModelSpec, type Step, stepsOf } from "../arch/index.js";
import { undroppedMaps } from "../arch/internal.js";
import { UsageError } from "../core/index.js";
import type { InputChoice } from "../kernels/index.js";
import type { ActivationThresholds, InputShare } from "./types.js";

/** Thresholds of one block by its steps; what is not there stays dense. */
export interface BlockThresholds {
  /** One number for each map of a linear step. */
  readonly linear: ReadonlyMap<Step, readonly number[]>;
  /** |f(gate)| below this becomes 0, by the step that applies f. */
  readonly gates: ReadonlyMap<Step, number>;
  /** Which inputs of those linear steps count before their thresholds. */
  readonly inputs?: InputShare;
}

/** Thresholds that skip the zeros behind a ReLU and nothing else; undefined for a model without any. */
export function exactZeros({ blocks }: ModelSpec): BlockThresholds[] | undefined {
  const arranged = blocks.map((block, layer) => arrange(block, layer, {}, undefined, undefined));
  return arranged.some(({ linear }) => linear.size > 0) ? arranged : undefined;
}

/** Roles of the linear maps whose inputs a ReLU leaves zeros in, by layer. */
export function rolesBehindZeros({ blocks }: ModelSpec): ReadonlySet<string>[] {
  return blocks.map((block, layer) => {
    const { linear } = arrange(block, layer, {}, undefined, undefined);
    return new Set(
      [...linear.keys()].flatMap((step) => (step.do === "linear" ? step.maps.map(({ map }) => map.role) : [])),
    );
  });
}

/** Arranges thresholds for the steps of every block. @throws UsageError for wrong layers, maps or values */
export function blockThresholds(thresholds: ActivationThresholds, { blocks }: ModelSpec): BlockThresholds[] {
  const { maps: perBlock, gate, inputs } = thresholds;
  checkInputs(inputs);
  if (perBlock.length !== blocks.length || (gate !== undefined && gate.length !== blocks.length)) {
    throw new UsageError(`thresholds of ${perBlock.length} layers (gate: ${gate?.length}) for ${blocks.length} layers`);
  }
  return blocks.map((block, layer) => arrange(block, layer, perBlock[layer], gate?.[layer], inputs));
}

/** @throws UsageError for shares that are none */
function checkInputs(inputs: InputShare | undefined): void {
  if (inputs === undefined) return;
  const isShare = (value: number) => value >= 0 && value <= 1;
  const fits =
    "keep" in inputs
      ? Number.isSafeInteger(inputs.keep) &&
        Number.isSafeInteger(inputs.of) &&
        inputs.keep >= 1 &&
        inputs.keep <= inputs.of
      : isShare("zeros" in inputs ? inputs.zeros : inputs.mass);
  if (!fits) throw new UsageError(`inputs by ${JSON.stringify(inputs)}: a share is from 0 to 1, and keep from 1 to of`);
}

/** How many of a row's inputs those are, for a backend. */
export function inputChoice(inputs: InputShare, cols: number): InputChoice {
  if ("zeros" in inputs) return { count: Math.round((1 - inputs.zeros) * cols) };
  return "keep" in inputs ? { count: inputs.keep, of: inputs.of } : inputs;
}

/** Whether all count. */
const keepsAll = (inputs: InputShare | undefined): boolean =>
  inputs === undefined ||
  ("zeros" in inputs ? inputs.zeros === 0 : "keep" in inputs ? inputs.keep === inputs.of : inputs.mass === 1);

function arrange(
  block: BlockSpec,
  layer: number,
  given: Readonly<Record<string, number>>,
  gate: number | undefined,
  inputs: InputShare | undefined,
): BlockThresholds {
  const valid = (value: number) => value >= 0 && Number.isFinite(value);
  const steps = [...stepsOf(block)];
  const roles = new Set(steps.flatMap((step) => (step.do === "linear" ? step.maps.map(({ map }) => map.role) : [])));
  const expanded = new Set(Array.from(undroppedMaps(block), ({ role }) => role));
  for (const [role, value] of Object.entries(given)) {
    if (!roles.has(role))
      throw new UsageError(`layer ${layer} has no linear map ${role}, only ${[...roles].join(", ")}`);
    if (value !== 0 && expanded.has(role))
      throw new UsageError(
        `layer ${layer}: ${role} reads what is kept of all positions, or single rows, and takes no threshold`,
      );
    if (!valid(value)) throw new UsageError(`layer ${layer}: the threshold of ${role} is ${value}`);
  }
  if (gate !== undefined && !valid(gate)) throw new UsageError(`layer ${layer}: the gate threshold is ${gate}`);
  if (gate && !steps.some((step) => step.do === "activate" && step.times !== undefined)) {
    throw new UsageError(
      `layer ${layer} has no gate; a threshold of the map behind its activation function does the same`,
    );
  }
  // What stands beside it, as a shared expert does, has values of another size.
  const gated = activationOf(block)?.step.site?.id;
  const gates = new Map<Step, number>();
  if (gate !== undefined) {
    for (const step of steps)
      if (step.do === "activate" && step.times && step.site?.id === gated) gates.set(step, gate);
  }
  // Behind a ReLU, a gate threshold or a choice many hidden values are exactly 0: skipping those costs nothing.
  const zeros = new Set(
    steps.flatMap((step) =>
      step.do === "choose" || (step.do === "activate" && (step.f === "relu" || step.f === "relu2" || gates.has(step)))
        ? [step.into]
        : [],
    ),
  );
  const chooses = !keepsAll(inputs);
  const linear = new Map<Step, readonly number[]>();
  for (const step of steps) {
    if (step.do !== "linear") continue;
    const values = step.maps.map(({ map }) => given[map.role] ?? 0);
    const chosen = chooses && !step.maps.some(({ map }) => expanded.has(map.role));
    if (zeros.has(step.of) || chosen || values.some((value) => value > 0)) linear.set(step, values);
  }
  return { linear, gates, ...(chooses && { inputs }) };
}

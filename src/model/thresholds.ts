import { activationOf, type BlockSpec, type ModelSpec, type Step, stepsOf } from "../arch/index.js";
import { expandedMaps } from "../arch/internal.js";
import { UsageError } from "../core/index.js";
import type { ActivationThresholds } from "./types.js";

/** Thresholds of one block by its steps; what is not there stays dense. */
export interface BlockThresholds {
  /** One number for each map of a linear step. */
  readonly linear: ReadonlyMap<Step, readonly number[]>;
  /** |f(gate)| below this becomes 0, by the step that applies f. */
  readonly gates: ReadonlyMap<Step, number>;
}

/** Arranges thresholds for the steps of every block. @throws UsageError for wrong layers, maps or values */
export function blockThresholds(thresholds: ActivationThresholds, { blocks }: ModelSpec): BlockThresholds[] {
  const { maps: perBlock, gate } = thresholds;
  if (perBlock.length !== blocks.length || (gate !== undefined && gate.length !== blocks.length)) {
    throw new UsageError(`thresholds of ${perBlock.length} layers (gate: ${gate?.length}) for ${blocks.length} layers`);
  }
  return blocks.map((block, layer) => arrange(block, layer, perBlock[layer], gate?.[layer]));
}

function arrange(
  block: BlockSpec,
  layer: number,
  given: Readonly<Record<string, number>>,
  gate: number | undefined,
): BlockThresholds {
  const valid = (value: number) => value >= 0 && Number.isFinite(value);
  const steps = [...stepsOf(block)];
  const roles = new Set(steps.flatMap((step) => (step.do === "linear" ? step.maps.map(({ map }) => map.role) : [])));
  const expanded = new Set(Array.from(expandedMaps(block), ({ role }) => role));
  for (const [role, value] of Object.entries(given)) {
    if (!roles.has(role))
      throw new UsageError(`layer ${layer} has no linear map ${role}, only ${[...roles].join(", ")}`);
    if (value !== 0 && expanded.has(role))
      throw new UsageError(`layer ${layer}: ${role} reads what is kept of all positions and takes no threshold`);
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
  // Behind a ReLU or a gate threshold many hidden values are exactly 0: skipping those costs nothing.
  const zeros = new Set(
    steps.flatMap((step) =>
      step.do === "activate" && (step.f === "relu" || step.f === "relu2" || gates.has(step)) ? [step.into] : [],
    ),
  );
  const linear = new Map<Step, readonly number[]>();
  for (const step of steps) {
    if (step.do !== "linear") continue;
    const values = step.maps.map(({ map }) => given[map.role] ?? 0);
    if (zeros.has(step.of) || values.some((value) => value > 0)) linear.set(step, values);
  }
  return { linear, gates };
}

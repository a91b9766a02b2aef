import type { MixtureStep, Step } from "../../arch/index.js";
import { UsageError } from "../../core/index.js";
import type { BlockThresholds } from "../thresholds.js";
import type { ExpertWork } from "./messages.js";

type Sent = NonNullable<ExpertWork["thresholds"]>;

/** Thresholds of a block as they are sent: those of its experts, by their steps. */
export function thresholdsByStep({ experts: [{ steps }] }: MixtureStep, { linear, gates }: BlockThresholds): Sent {
  return steps.map((step) => linear.get(step) ?? (gates.has(step) ? [gates.get(step)!] : null));
}

/** The other way. @throws UsageError where they do not fit the steps */
export function thresholdsOf({ experts: [{ steps }] }: MixtureStep, sent: Sent): BlockThresholds {
  const linear = new Map<Step, readonly number[]>();
  const gates = new Map<Step, number>();
  for (const [s, step] of steps.entries()) {
    const values = sent[s];
    if (values == null) continue;
    if (step.do === "linear" && values.length === step.maps.length) linear.set(step, values);
    else if (step.do === "activate" && values.length === 1) gates.set(step, values[0]);
    else throw new UsageError(`${values.length} thresholds for step ${s} of an expert`);
  }
  return { linear, gates };
}

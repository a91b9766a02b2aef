import type { Step } from "../../../../arch/index.js";
import { NoKernel } from "../noKernel.js";
import type { Recording } from "../recording.js";
import { activate } from "./activate.js";
import { add } from "./add.js";
import { attend } from "./attend.js";
import { linear } from "./linear.js";
import { mixture } from "./mixture.js";
import { norm } from "./norm.js";
import { rotate } from "./rotate.js";

/** Records a step. @throws NoKernel for what of it has none */
export type Recorder<S extends Step> = (step: S, recording: Recording) => void;

/**
 * The kinds of steps that are trained by kernels of our own, forward and back. A model with any other, or with one of a kind that
 * has no kernel, is trained by the engine.
 */
export const deviceSteps: { readonly [K in Step["do"]]?: Recorder<Extract<Step, { do: K }>> } = {
  norm,
  linear,
  rotate,
  attend,
  activate,
  mixture: (step, recording) => mixture(step, recording, recordSteps),
  add,
};

/** @throws NoKernel for a step that has none */
export function recordSteps(steps: readonly Step[], recording: Recording): void {
  for (let s = 0; s < steps.length; s++) {
    const [step, next] = steps.slice(s);
    if (step.do === "attend" && next?.do === "add" && next.of === step.into) {
      attend(step, recording, next.into);
      s++;
      continue;
    }
    const record = deviceSteps[step.do] as Recorder<Step> | undefined;
    if (record === undefined) throw new NoKernel(`steps of the kind ${step.do}`);
    record(step, recording);
  }
}

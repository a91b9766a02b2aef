import type * as z from "zod/mini";
import type { OptimizerOptions } from "../optimizers/adamW.js";
import type { Link, Updates } from "../optimizers/link.js";
import type { Masks } from "../optimizers/links.js";
import type { DeviceMethod } from "../resident.js";
import type { State } from "../state.js";
import type { FloatArray, ParameterInfo, Values } from "../values.js";

/** What a method is given when a run begins. */
export interface MethodContext {
  readonly parameters: readonly ParameterInfo[];
  /** Weights at the start; a method may change them in place. */
  readonly weights: Map<string, FloatArray>;
  readonly optimizer: OptimizerOptions;
  /** Steps the run is planned for. */
  readonly steps: number;
  readonly seed: number;
}

/**
 * One run of a method. A training step is: `refresh`, gradient of the loss at `effective` weights, `gradient`, one step of
 * `link`, `after`. The engine sees only the effective weights; everything that makes training sparse is arithmetic on
 * arrays, here.
 */
export interface MethodRun {
  readonly link: Link;
  /** Masks, counters and flags, stored with the run. The arrays are the run's own and are restored in place. */
  readonly state: State;
  /** Current keep masks of the sparse parameters, u8, 1 = keep. */
  readonly masks?: Masks;
  /** Before the gradient: new masks from the weights. */
  refresh?(weights: Values, step: number): void;
  /** What the forward pass multiplies with; the weights themselves by default. */
  effective?(weights: Values): Values;
  /** Turns dL/d(effective weights) into the gradient of the weights, in place; adds those of trainables of its own. */
  gradient?(gradients: Map<string, FloatArray>, weights: Values, step: number): void;
  after?(weights: Updates, step: number): void;
  /** Leaves in the weights what the method promises: exact zeros, folded scales. */
  finish?(weights: Map<string, FloatArray>): void;
  /** The same for a run that stays on a device, where a kernel can do it. */
  device?: DeviceMethod;
  /** For the run log: flip rates, densities. */
  metrics?(): Record<string, number>;
}

/** One method: one file, one line in index.ts. */
export interface TrainMethod<Options = unknown> {
  id: string;
  title: string;
  paper: string;
  options: z.ZodMiniType<Options>;
  start(context: MethodContext, options: Options): MethodRun;
}

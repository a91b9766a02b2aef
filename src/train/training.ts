import type { MethodContext, MethodRun } from "./methods/contract.js";
import type { Batch, BatchControl, Objective } from "./objective.js";
import type { OptimizerOptions } from "./optimizers/adamW.js";
import { applyStep } from "./optimizers/link.js";
import { canHoldRun, type DeviceMethod, type ResidentObjective, type ResidentRun } from "./resident.js";
import { restoreState, type State, stateOf } from "./state.js";
import { type FloatArray, zerosLike } from "./values.js";

/** All that a training begins with. */
export interface TrainingOptions {
  objective: Objective;
  /** Taken over and changed in place. */
  weights: Map<string, FloatArray>;
  optimizer: OptimizerOptions;
  /** Steps the run is planned for; schedules of methods stretch over them. */
  steps: number;
  seed: number;
  /** Starts the method on these weights. */
  method: (context: MethodContext) => MethodRun;
  /** Steers the model through its batches. */
  control?: BatchControl;
  /**
   * Weights, moments and masks stay on the device where the objective and the method can: much faster, and then the arrays here
   * are as old as the last `synchronise`.
   */
  onDevice?: boolean;
}

/** What one step of training saw. */
export interface StepResult {
  /** 0 for the first. */
  step: number;
  /** At the effective weights before the step. */
  loss: number;
  measured: ReadonlyMap<string, FloatArray>;
}

/** A training run, one step at a time. Its `state` is all that must be stored to go on exactly. */
export class Training {
  readonly run: MethodRun;
  readonly #optimizerState: State;
  readonly #device: DeviceMethod | undefined;
  #resident: ResidentRun | undefined;
  #step = 0;

  constructor(readonly options: TrainingOptions) {
    const { objective, weights, optimizer, steps, seed } = options;
    const context = { parameters: objective.parameters, weights, optimizer, steps, seed };
    this.run = options.method(context);
    this.#device = options.onDevice && canHoldRun(objective) && !options.control ? this.run.device : undefined;
    this.#optimizerState =
      this.#device === undefined
        ? this.run.link.init(weights)
        : { mean: stateOf(zerosLike(weights)), square: stateOf(zerosLike(weights)) };
  }

  /** Steps done. */
  get step(): number {
    return this.#step;
  }

  /** Dense values behind the forward pass. */
  get weights(): Map<string, FloatArray> {
    return this.options.weights;
  }

  /** What the forward pass multiplies with. */
  get effective(): ReadonlyMap<string, FloatArray> {
    return this.run.effective?.(this.weights) ?? this.weights;
  }

  async advance(batch: Batch): Promise<StepResult> {
    const { run, weights } = this;
    const { objective, control } = this.options;
    const step = this.#step;
    if (this.#device !== undefined) {
      this.#resident ??= this.#start(this.#device);
      const { loss, measured } = await this.#resident.advance(batch, step);
      this.#step++;
      return { step, loss, measured };
    }
    run.refresh?.(weights, step);
    const { loss, gradients, measured } = await objective.lossAndGradients(this.effective, {
      ...batch,
      ...control?.arrays(),
    });
    run.gradient?.(gradients, weights, step);
    applyStep(run.link, weights, gradients, this.#optimizerState, step);
    run.after?.(weights, step);
    control?.observe(measured);
    this.#step++;
    return { step, loss, measured };
  }

  /** The model's outputs as the run stands, row-major. */
  predict(batch: Batch): Promise<FloatArray> {
    return this.#resident?.predict(batch) ?? this.options.objective.predict(this.effective, batch);
  }

  /** Brings weights, state and masks up to date with the device; nothing to do for a run on the host. */
  async synchronise(): Promise<void> {
    await this.#resident?.synchronise();
  }

  #start(method: DeviceMethod): ResidentRun {
    const { objective, optimizer, weights } = this.options;
    const { mean, square } = this.#optimizerState as Record<string, Record<string, FloatArray>>;
    return (objective as ResidentObjective).startResident({
      method,
      optimizer,
      parameters: objective.parameters,
      arrays: { weights, mean: new Map(Object.entries(mean)), square: new Map(Object.entries(square)) },
      chosen: this.#step > 0,
    });
  }

  /** Ends the method: exact zeros, folded scales. @returns the weights */
  finish(): Map<string, FloatArray> {
    this.run.finish?.(this.weights);
    return this.weights;
  }

  /** The arrays are the run's own: store them before the next step. */
  get state(): State {
    return {
      step: this.#step,
      weights: stateOf(this.weights),
      optimizer: this.#optimizerState,
      method: this.run.state,
      control: this.options.control?.state ?? {},
    };
  }

  /** Goes on where a run with the same options stood. @throws UsageError when the state is of another run */
  restore(state: State): void {
    const own = this.state;
    restoreState(own, state);
    this.#step = own.step as number;
    this.#resident?.[Symbol.dispose]();
    this.#resident = undefined;
  }
}

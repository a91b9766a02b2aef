import { breathe, type JobOptions, Stage, UsageError } from "../core/index.js";
import type { Batch } from "./objective.js";
import type { Schedule } from "./optimizers/schedule.js";
import type { Training } from "./training.js";

/** One line of a run log. */
export interface LogRecord {
  /** Steps done, this one included. */
  step: number;
  /** Before the step. */
  loss: number;
  rate: number;
  /** Of this step. */
  elapsedMs: number;
  /** What the method and the router measure: flip rates, densities, silent experts. */
  [metric: string]: number;
}

/** A training with its batches, its length and how it is stored. */
export interface RunOptions extends JobOptions {
  training: Training;
  batch: (step: number) => Batch | Promise<Batch>;
  /** Steps of the whole run; those done before are not repeated. */
  steps: number;
  rate: Schedule;
  onStep?: (record: LogRecord) => void;
  /** Stores the run; called every `saveEvery` steps, and when the signal stops it. */
  save?: () => Promise<void>;
  saveEvery?: number;
}

/**
 * Runs a training to its end, or until the signal stops it: then it is stored first.
 * @throws UsageError when the loss is no longer finite; what was stored before stays
 */
export async function runTraining(options: RunOptions): Promise<void> {
  const { training, steps, save, saveEvery = Number.POSITIVE_INFINITY, signal } = options;
  const stage = new Stage("train", steps - training.step, "steps", options.onProgress);
  while (training.step < steps) {
    try {
      await breathe(signal);
    } catch (reason) {
      await save?.();
      throw reason;
    }
    const startMs = performance.now();
    const { step, loss, measured } = await training.advance(await options.batch(training.step));
    const elapsedMs = performance.now() - startMs;
    if (!Number.isFinite(loss)) {
      throw new UsageError(
        `the loss of step ${step + 1} is ${loss}: the run has diverged; give a lower learning rate, more warm-up or clip gradients`,
      );
    }
    const prediction = measured.get("prediction")?.[0];
    options.onStep?.({
      step: step + 1,
      loss,
      // Routers add to the loss what balances them.
      ...(prediction !== undefined && prediction !== loss && { prediction }),
      rate: options.rate(step),
      elapsedMs,
      ...training.run.metrics?.(),
      ...training.options.control?.metrics?.(),
    });
    stage.advance(1, `loss ${loss.toFixed(3)}`);
    if ((step + 1) % saveEvery === 0 && step + 1 < steps) await save?.();
  }
}

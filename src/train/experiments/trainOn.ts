import type { JobOptions } from "../../core/index.js";
import type { TokenWindows } from "../data/tokens.js";
import { method as dense } from "../methods/dense.js";
import type { BatchControl, Objective } from "../objective.js";
import { cosine } from "../optimizers/schedule.js";
import { runTraining } from "../runTraining.js";
import type { State } from "../state.js";
import { Training } from "../training.js";
import { type FloatArray, isSparsifiable } from "../values.js";
import type { CellState } from "./contract.js";

/** A language model that has learnt, what it is shown, and how. */
interface FurtherTraining extends JobOptions {
  objective: Objective;
  /** Trained in place. */
  weights: Map<string, FloatArray>;
  windows: TokenWindows;
  /** The peak rate; it ends at a tenth. */
  protocol: { steps: number; rate: number };
  control: BatchControl | undefined;
  seed: number;
  state: CellState;
  /** Steps between two stored states. */
  saveEvery: number;
}

/** Trains all weights of a language model on; goes on from the cell's state where there is one. */
export async function trainOn(task: FurtherTraining): Promise<void> {
  const { objective, weights, windows, control, seed, state, saveEvery, signal, onProgress } = task;
  const { steps, rate: peak } = task.protocol;
  const linear = new Set(objective.parameters.filter(isSparsifiable).map(({ name }) => name));
  const rate = cosine({ peak, final: peak / 10, warmup: Math.min(20, steps / 4), steps });
  const training = new Training({
    objective,
    weights,
    optimizer: { rate, beta2: 0.95, weightDecay: 0.1, decays: (name) => linear.has(name), clip: 1 },
    steps,
    seed,
    method: (context) => dense.start(context, {}),
    control,
  });
  const earlier = await state.load();
  if (earlier !== undefined) training.restore(earlier.training as State);
  await runTraining({
    ...{ training, steps, rate, saveEvery, signal, onProgress },
    batch: (step) => windows.batch(step),
    save: () => state.save(training.step, { training: training.state }),
  });
}

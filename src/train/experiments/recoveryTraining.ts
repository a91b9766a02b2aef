import { type JobOptions, median } from "../../core/index.js";
import type { TokenWindows } from "../data/tokens.js";
import { trainMethods } from "../methods/index.js";
import type { Objective } from "../objective.js";
import { cosine } from "../optimizers/schedule.js";
import { runTraining } from "../runTraining.js";
import { restoreState, type State } from "../state.js";
import { Training } from "../training.js";
import { type FloatArray, isSparsifiable, type Values } from "../values.js";
import type { CellState } from "./contract.js";
import type { Contestant } from "./recoveryContestants.js";
import type { RecoveryProtocol } from "./recoveryProtocol.js";

export interface RecoveryRun {
  /** [tokens, perplexity] over the run, of what the forward pass multiplies with. */
  curve: [tokens: number, perplexity: number][];
  /** Mean training loss of each hundredth of the run, nats a token. */
  losses: number[];
  /** Share of mask entries that differ from the first mask; null where no mask moves. */
  drift: number | null;
  /** Median over the steps of this process. */
  tokensPerSecond: number | null;
}

export interface RecoveryTask extends JobOptions {
  objective: Objective;
  /** Trained in place, and left as the method promises. */
  weights: Map<string, FloatArray>;
  windows: TokenWindows;
  perplexity(weights: Values): Promise<number>;
  protocol: RecoveryProtocol;
  training: NonNullable<Contestant["training"]>;
  seed: number;
  state: CellState;
}

const saveEvery = 500;

/** Trains a language model by one method; goes on from the cell's state where there is one. */
export async function trainToRecover(task: RecoveryTask): Promise<RecoveryRun> {
  const { objective, weights, windows, protocol, seed, signal, onProgress } = task;
  const { steps, tests, batchSize, window, weightDecay } = protocol;
  const { method } = await trainMethods[task.training.method]();
  const linear = new Set(objective.parameters.filter(isSparsifiable).map(({ name }) => name));
  const factor = task.training.rate ?? 1;
  const rate = cosine({
    peak: protocol.rate * factor,
    final: protocol.finalRate * factor,
    warmup: protocol.warmup,
    steps,
  });
  const training = new Training({
    objective,
    weights,
    optimizer: { rate, beta2: 0.95, weightDecay, decays: (name) => linear.has(name), clip: 1 },
    steps,
    seed,
    method: (context) => method.start(context, method.options.parse(task.training.options)),
    onDevice: true,
  });
  const losses = new Float32Array(steps);
  const perplexities = new Float64Array(tests + 1);
  /** Shares the arrays of the run. */
  const stateNow = (): State => ({ training: training.state, losses, perplexities });
  const save = async () => {
    await training.synchronise();
    await task.state.save(training.step, stateNow());
  };

  const stored = await task.state.load();
  if (stored === undefined) perplexities[0] = await task.perplexity(weights);
  else {
    training.restore(stored.training as State);
    restoreState({ losses, perplexities }, stored);
  }
  const stepMs: number[] = [];
  const stepsUntil = (test: number) => Math.round((steps * test) / tests);
  for (let test = 1; test <= tests; test++) {
    await runTraining({
      training,
      batch: (step) => windows.batch(step),
      steps: stepsUntil(test),
      rate,
      onStep: ({ step, loss, elapsedMs }) => {
        losses[step - 1] = loss;
        stepMs.push(elapsedMs);
      },
      save,
      saveEvery,
      signal,
      onProgress,
    });
    if (perplexities[test] > 0) continue;
    await training.synchronise();
    perplexities[test] = await task.perplexity(training.effective);
    await save();
  }
  const { drift = null } = training.run.metrics?.() ?? {};
  await training.synchronise();
  training.finish();
  const tokensOf = (step: number) => step * batchSize * window;
  return {
    curve: Array.from(perplexities, (perplexity, test) => [tokensOf(stepsUntil(test)), perplexity]),
    losses: means(losses, Math.min(100, steps)),
    drift,
    tokensPerSecond: stepMs.length === 0 ? null : (1000 * tokensOf(1)) / median(stepMs),
  };
}

/** Means of `parts` stretches, one after the other. */
function means(values: Float32Array, parts: number): number[] {
  return Array.from({ length: parts }, (_, k) => {
    const some = values.subarray((k * values.length) / parts, ((k + 1) * values.length) / parts);
    return some.reduce((a, b) => a + b, 0) / some.length;
  });
}

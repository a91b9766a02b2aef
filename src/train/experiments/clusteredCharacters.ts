import { breathe } from "../../core/index.js";
import { meanLoss } from "../languageModel.js";
import { method as dense } from "../methods/dense.js";
import { cosine } from "../optimizers/schedule.js";
import { runTraining } from "../runTraining.js";
import { Training } from "../training.js";
import { characterModel } from "./characterModel.js";
import { type Characters, decoders } from "./clusteredProtocol.js";
import type { Cell, CellOptions, CellResult } from "./contract.js";

export const charactersFile = "calib.txt";
const saveEvery = 100;

export interface CharactersResult extends CellResult {
  /** Nats a character on the last tenth of the text, all characters of a window at once. */
  testLoss: number;
  /** The same weights and centroids where each character belongs to its nearest centroid, which knows nothing of later ones. */
  causalLoss: number;
  /** Of the text. */
  characters: number;
}

/** Trains the character model of a cell and measures what it has learnt. */
export async function trainClusteredCharacters(
  { seed, settings }: Cell,
  protocol: Characters,
  { signal, onProgress, readText, device, state }: CellOptions,
): Promise<CharactersResult> {
  const { steps, rate, heads, layers, testWindows } = protocol;
  const clusters = decoders[settings.kind as string].clusters?.(heads, layers);
  const text = await readText(charactersFile);
  const model = await characterModel(text, protocol, seed, device, { clusters });
  using objective = model.objective;
  const control = model.control?.(seed);
  const schedule = cosine({ peak: rate, final: rate / 10, warmup: Math.min(50, Math.floor(steps / 4)), steps });
  const training = new Training({
    objective,
    weights: model.initial(seed),
    optimizer: { rate: schedule, beta2: 0.95, clip: 1 },
    steps,
    seed,
    method: (context) => dense.start(context, {}),
    control,
  });
  const stored = await state.load();
  if (stored !== undefined) training.restore(stored);
  const job = { signal, onProgress };
  await runTraining({
    training,
    batch: (step) => model.train.batch(step),
    steps,
    rate: schedule,
    save: () => state.save(training.step, training.state),
    saveEvery,
    ...job,
  });
  const testLoss = await meanLoss(objective, training.weights, model.test, testWindows, { ...job, control });
  if (clusters?.kind !== "routing") return { testLoss, causalLoss: testLoss, characters: text.length };
  await breathe(signal);
  const causal = await characterModel(text, protocol, seed, device, { clusters: { ...clusters, kind: "nearest" } });
  using causalObjective = causal.objective;
  const causalLoss = await meanLoss(causalObjective, training.weights, model.test, testWindows, { ...job, control });
  return { testLoss, causalLoss, characters: text.length };
}

import { describe, expect, test } from "vitest";
import { memoryFiles, memorySinks } from "../../src/io/index.js";
import { trainMethods } from "../../src/train/methods/index.js";
import type { BatchControl } from "../../src/train/objective.js";
import { cosine } from "../../src/train/optimizers/schedule.js";
import { runTraining } from "../../src/train/runTraining.js";
import { readState, writeState } from "../../src/train/storedState.js";
import { Training } from "../../src/train/training.js";
import { threeLayerBatch, threeLayers, threeLayerWeights } from "./threeLayers.js";

const steps = 12;
const rate = cosine({ peak: 0.02, warmup: 3, steps });

/** Options under which something happens within twelve steps. */
const lively: Record<string, object> = {
  gradual: { interval: 3 },
  lottery: { rounds: 2, rewind: 0.5 },
  iht: { density: 0.4, freezeAt: 0.6, countRetention: true },
  l1: { lambda: 0.02, sparsity: 0.5 },
  transposable: { interval: 2, denseFrom: 0.8 },
  ast: { interval: 2 },
  cast: { interval: 2, decay: 0.01 },
  set: { interval: 2 },
  rigl: { interval: 2 },
  "grow-prune": { interval: 2 },
};

/** Runs beside those of every method with its defaults. */
const structured: Record<string, readonly [id: string, options: object]> = {
  "RigL in blocks": ["rigl", { structure: "block:4x2", interval: 2, density: 0.5 }],
  "SET in 2:4": ["set", { structure: "2:4", interval: 2 }],
  "gradual over neurons": ["gradual", { structure: "neurons", interval: 3 }],
  "hard thresholding of rows": ["iht", { structure: "rows", density: 0.5, scope: "global" }],
  "group lasso of columns": ["l1", { structure: "columns", lambda: 0.3 }],
  "S-STE in rows": ["s-ste", { pattern: { type: "rows", sparsity: 0.5 } }],
};

async function begin(run: string): Promise<Training> {
  const [id, options] = structured[run] ?? [run, lively[run] ?? {}];
  const { method } = await trainMethods[id]();
  return new Training({
    objective: threeLayers(),
    weights: threeLayerWeights(1),
    optimizer: { rate, weightDecay: 0.1, clip: 1 },
    steps,
    seed: 9,
    method: (context) => method.start(context, method.options.parse(options)),
  });
}

const advance = async (training: Training, until: number) => {
  const losses: number[] = [];
  while (training.step < until) losses.push((await training.advance(threeLayerBatch(training.step))).loss);
  return losses;
};

/** Through bytes, as a run that was killed comes back. */
async function throughStorage(training: Training, id: string): Promise<Training> {
  const files = new Map<string, Uint8Array>();
  await writeState(memorySinks(files), training.state);
  const back = await begin(id);
  back.restore((await readState(memoryFiles("memory", files)))!);
  return back;
}

const bytesOf = (weights: ReadonlyMap<string, Float32Array | Float64Array>) =>
  Array.from(weights, ([name, values]) => [name, Array.from(new Uint8Array(values.buffer))]);

describe.each([...Object.keys(trainMethods), ...Object.keys(structured)])("%s", (id) => {
  test("killed after any step and continued is the uninterrupted run, bit for bit", async () => {
    const whole = await begin(id);
    const losses = await advance(whole, steps);
    const finished = bytesOf(whole.finish());
    for (let kill = 1; kill < steps; kill += 2) {
      const killed = await begin(id);
      const first = await advance(killed, kill);
      const continued = await throughStorage(killed, id);
      const second = await advance(continued, steps);
      expect([...first, ...second]).toEqual(losses);
      expect(bytesOf(continued.finish())).toEqual(finished);
    }
  });
});

test("what steers a model through its batches is stored and goes on", async () => {
  const { method } = await trainMethods.dense();
  const controlled = () => {
    const state = { weight: Float32Array.of(1) };
    const control: BatchControl = {
      state,
      arrays: () => ({ unused: { shape: [], values: state.weight } }),
      observe() {
        state.weight[0] *= 1.5;
      },
    };
    const training = new Training({
      objective: threeLayers(),
      weights: threeLayerWeights(1),
      optimizer: { rate },
      steps,
      seed: 9,
      method: (context) => method.start(context, {}),
      control,
    });
    return { training, state };
  };
  const first = controlled();
  await advance(first.training, 3);
  const files = new Map<string, Uint8Array>();
  await writeState(memorySinks(files), first.training.state);
  const second = controlled();
  second.training.restore((await readState(memoryFiles("memory", files)))!);
  expect(second.state.weight[0]).toBe(1.5 ** 3);
});

test("a state of other settings is refused, naming the entry", async () => {
  const dense = await begin("dense");
  const masked = await begin("ste");
  expect(() => masked.restore(dense.state)).toThrow(/state\/method\/masks does not fit/);
});

test("a run that is stopped stores itself before it ends", async () => {
  const training = await begin("dense");
  const controller = new AbortController();
  const saved: number[] = [];
  const run = runTraining({
    training,
    steps,
    rate,
    batch: threeLayerBatch,
    saveEvery: 2,
    save: async () => void saved.push(training.step),
    onStep: ({ step }) => step === 5 && controller.abort(),
    signal: controller.signal,
  });
  await expect(run).rejects.toThrow(/abort/i);
  expect(saved).toEqual([2, 4, 5]);
});

test("a run that diverges ends with the step, and what was stored before stays", async () => {
  const training = await begin("dense");
  const saved: number[] = [];
  const run = runTraining({
    training,
    steps,
    rate,
    batch(step) {
      const batch = threeLayerBatch(step);
      if (step === 5) batch.y.values[0] = Number.NaN;
      return batch;
    },
    saveEvery: 2,
    save: async () => void saved.push(training.step),
  });
  await expect(run).rejects.toThrow(/the loss of step 6 is NaN: the run has diverged/);
  expect(saved).toEqual([2, 4]);
});

test("a broken state file is a FormatError", async () => {
  const files = new Map<string, Uint8Array>();
  await writeState(memorySinks(files), (await begin("dense")).state);
  const text = new TextDecoder().decode(files.get("state.json"));
  files.set("state.json", new TextEncoder().encode(text.replace('"state/weights/a"', '"state/weights/z"')));
  await expect(readState(memoryFiles("memory", files))).rejects.toThrow(/state\/weights\/z: no such array/);
});

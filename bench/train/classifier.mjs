// What a step of the text classifier takes, on the built package:
//   node bench/train/classifier.mjs [--device wasm|webgpu] [--width 256] [--length 64] [--batch 100] [--steps 20] [--json]
//
// Random tokens, a third of them filling. A step is loss, gradients, Adam and, for hard thresholding, the exact projection onto
// the largest tenth: of all weights together, and of each block's.

import { encoderObjective } from "../../dist/train/engine/open.js";
import { constant, stopEngine, Training, trainMethods } from "../../dist/train/index.js";
import { initialEncoder } from "../../dist/train/models/encoderParameters.js";
import { randomFor } from "../../dist/train/seeds.js";
import { readOptions } from "../../scripts/options.mjs";

const { values: options } = readOptions({
  options: {
    device: { type: "string", default: "wasm" },
    width: { type: "string", default: "256" },
    length: { type: "string", default: "64" },
    batch: { type: "string", default: "100" },
    steps: { type: "string", default: "20" },
    json: { type: "boolean", default: false },
  },
});
const [width, length, batch, steps] = ["width", "length", "batch", "steps"].map((name) => Number(options[name]));
const { device } = options;
const config = {
  vocabSize: 10_000,
  length,
  hiddenSize: width,
  feedForwardSize: 2 * width,
  heads: 8,
  blocks: 4,
  classes: 2,
};

const random = randomFor(0, "bench");
const tokens = Int32Array.from({ length: batch * length }, (_, i) =>
  i % length < (2 * length) / 3 ? 1 + random.integer(config.vocabSize - 1) : 0,
);
const label = Int32Array.from({ length: batch }, () => random.integer(config.classes));
const data = { tokens: { shape: [tokens.length], values: tokens }, label: { shape: [batch], values: label } };

/** Multiply-adds of a token in the blocks' maps and in attention; backward makes twice as many, and the scores again. */
const linear = config.blocks * (3 * width ** 2 + 2 * width * config.feedForwardSize);
const attention = 2 * config.blocks * width * length;
const flops = 2 * batch * length * (3 * linear + 3.5 * attention);

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
const results = [];
const objective = await encoderObjective(config, device);
for (const [id, settings] of [
  ["dense", {}],
  ["iht", { density: 0.1, scope: "global" }],
  ["iht", { density: 0.1, scope: "layer" }],
]) {
  const { method } = await trainMethods[id]();
  const training = new Training({
    objective,
    weights: initialEncoder(config, randomFor(0, "weights")),
    optimizer: { rate: constant(1e-4) },
    steps,
    seed: 0,
    method: (context) => method.start(context, method.options.parse(settings)),
    onDevice: true,
  });
  await training.advance(data); // compiles
  const ms = [];
  for (let step = 0; step < steps; step++) {
    const startMs = performance.now();
    await training.advance(data);
    ms.push(performance.now() - startMs);
  }
  const predictMs = [];
  for (let i = 0; i < 5; i++) {
    const startMs = performance.now();
    await training.predict(data);
    predictMs.push(performance.now() - startMs);
  }
  const result = {
    id,
    ...settings,
    stepMs: median(ms),
    predictMs: median(predictMs),
    gflops: flops / median(ms) / 1e6,
  };
  results.push(result);
  if (!options.json) {
    const name = [id, ...Object.values(settings)].join(" ");
    console.log(
      `${name}: ${result.stepMs.toFixed(2)} ms a step, ${result.gflops.toFixed(0)} GFLOP/s, predictions ${result.predictMs.toFixed(2)} ms`,
    );
  }
}
objective[Symbol.dispose]();
if (options.json) console.log(JSON.stringify({ device, config, batch, steps, results }));
await stopEngine(device);

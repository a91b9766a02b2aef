import { expect, test } from "vitest";
import { Random } from "../../src/core/index.js";
import { openCheckpoint } from "../../src/io/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { describeDecoder } from "../../src/model/index.js";
import {
  constant,
  decoderObjective,
  modelParameters,
  readWeights,
  Training,
  trainMethods,
} from "../../src/train/index.js";
import { cloneValues } from "../../src/train/values.js";

test.each(["mixtral", "qwen3"])("%s: steps have the same bits on any number of threads", async (name) => {
  const checkpoint = await openCheckpoint(directoryFiles(`test/golden/arch/${name}`));
  const { config } = await describeDecoder(checkpoint);
  const parameters = modelParameters(config.spec, checkpoint.tensors);
  const weights = await readWeights(checkpoint, parameters);
  await checkpoint.close();
  const window = 24;
  const random = new Random(5);
  const ids = () => Int32Array.from({ length: 3 * window }, () => random.integer(config.spec.vocabSize));
  const batch = { tokens: { shape: [3 * window], values: ids() }, label: { shape: [3 * window], values: ids() } };
  const { method } = await trainMethods["sr-ste"]();
  const runOn = async (threads: number) => {
    using objective = await decoderObjective(config.spec, parameters, window, "wasm", { threads });
    const { loss, gradients } = await objective.lossAndGradients(weights, batch);
    const training = new Training({
      objective,
      weights: cloneValues(weights),
      optimizer: { rate: constant(1e-2), clip: 1 },
      steps: 3,
      seed: 1,
      method: (context) => method.start(context, method.options.parse({})),
      onDevice: true,
    });
    for (let step = 0; step < 3; step++) await training.advance(batch);
    await training.synchronise();
    return { loss, gradients, weights: training.weights };
  };
  const alone = await runOn(1);
  expect(alone.weights.get("lm_head.weight")).not.toEqual(weights.get("lm_head.weight"));
  expect(await runOn(3)).toEqual(alone);
});

test("a number of threads that cannot be is refused", async () => {
  const checkpoint = await openCheckpoint(directoryFiles("test/golden/arch/llama"));
  const { config } = await describeDecoder(checkpoint);
  await checkpoint.close();
  const parameters = modelParameters(config.spec);
  for (const threads of [0, 1.5])
    await expect(decoderObjective(config.spec, parameters, 8, "wasm", { threads })).rejects.toThrow(
      `${threads} threads; expected 1 to 64`,
    );
});

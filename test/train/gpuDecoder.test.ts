import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Random } from "../../src/core/index.js";
import { openCheckpoint } from "../../src/io/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { describeDecoder } from "../../src/model/index.js";
import { startEngine } from "../../src/train/engine/engine.js";
import { gpuDecoder } from "../../src/train/engine/gpu/gpuDecoder.js";
import { decoderParameters, type Objective, readWeights } from "../../src/train/index.js";
import { useSoftwareGpu } from "../support/softwareGpu.js";

useSoftwareGpu();
const unavailable = await import("../../src/kernels/index.js")
  .then(({ openCompute }) => openCompute())
  .then(
    (compute) => compute[Symbol.dispose](),
    (error: Error) => error.message,
  );

const open: Objective[] = [];
afterAll(() => {
  for (const objective of open) objective[Symbol.dispose]();
});

async function modelOf(directory: string) {
  const checkpoint = await openCheckpoint(directoryFiles(directory));
  const { config } = await describeDecoder(checkpoint);
  const parameters = decoderParameters(checkpoint.tensors.values());
  const weights = await readWeights(checkpoint, parameters);
  await checkpoint.close();
  return { config, parameters, weights };
}

function randomBatch(vocabulary: number, length: number) {
  const random = new Random(3);
  const ids = () => Int32Array.from({ length }, () => random.integer(vocabulary));
  return { tokens: { shape: [length], values: ids() }, label: { shape: [length], values: ids() } };
}

/** ‖a − b‖ / ‖b‖ */
function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [difference, size] = [0, 0];
  for (let i = 0; i < b.length; i++) {
    difference += (a[i] - b[i]) ** 2;
    size += b[i] ** 2;
  }
  return Math.sqrt(difference / size);
}

describe.skipIf(unavailable !== undefined)(
  `the hand-written step on WebGPU${unavailable === undefined ? "" : `: ${unavailable}`}`,
  () => {
    beforeAll(() => startEngine("wasm"));

    test.each([
      ["llama", 12, 3],
      ["llama3-rope", 20, 2],
      ["mistral", 72, 1],
    ])("%s: loss, gradients and logits are the engine's, windows of %d", async (name, window, sequences) => {
      const { config, parameters, weights } = await modelOf(`test/golden/arch/${name}`);
      const [{ tracedObjective }, { decoder }] = await Promise.all([
        import("../../src/train/engine/tracedObjective.js"),
        import("../../src/train/models/decoder.js"),
      ]);
      const oracle = tracedObjective(decoder(config, parameters, window));
      const objective = (await gpuDecoder(config, parameters, window))!;
      open.push(oracle, objective);
      const batch = randomBatch(config.vocabSize, window * sequences);
      const expected = await oracle.lossAndGradients(weights, batch);
      const found = await objective.lossAndGradients(weights, batch);
      expect(found.loss).toBeCloseTo(expected.loss, 5);
      expect(found.measured.get("prediction")![0]).toBeCloseTo(expected.loss, 5);
      for (const [parameter, gradient] of expected.gradients) {
        expect([parameter, distance(found.gradients.get(parameter)!, gradient) < 1e-4]).toEqual([parameter, true]);
      }
      expect(await objective.loss(weights, batch)).toBeCloseTo(expected.loss, 5);
      expect(distance(await objective.predict(weights, batch), await oracle.predict(weights, batch))).toBeLessThan(
        1e-5,
      );
      // Another number of sequences, then the first again: buffers are made anew, nothing is left over.
      const other = randomBatch(config.vocabSize, window * (sequences + 1));
      expect((await objective.lossAndGradients(weights, other)).loss).toBeCloseTo(await oracle.loss(weights, other), 5);
      expect((await objective.lossAndGradients(weights, batch)).gradients).toEqual(found.gradients);
    });
  },
);

test("what the step does not do is left to the engine", async () => {
  for (const name of ["qwen2", "qwen3"]) {
    const { config, parameters } = await modelOf(`test/golden/arch/${name}`);
    expect(await gpuDecoder(config, parameters, 16)).toBeUndefined();
  }
  const { config, parameters } = await modelOf("test/golden/arch/llama");
  expect(await gpuDecoder(config, parameters, 18)).toBeUndefined();
});

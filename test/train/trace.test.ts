import { beforeAll, describe, expect, test } from "vitest";
import { families, type ModelSpec, readModelSpec, type Step } from "../../src/arch/index.js";
import { type Checkpoint, memoryFiles, memorySinks, openCheckpoint } from "../../src/io/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { startEngine } from "../../src/train/engine/engine.js";
import { tracedObjective } from "../../src/train/engine/tracedObjective.js";
import { modelParameters, readWeights, type StoredFloat, writeWeights } from "../../src/train/index.js";
import { traceModel } from "../../src/train/trace/trace.js";
import { architectureGolden, architectureNames, negativeLogLikelihood, path } from "../golden/golden.js";

/** Every family whose checkpoints the runtime runs is trained, from the same description. */

beforeAll(() => startEngine("wasm"));

const int32 = (values: ArrayLike<number>) => ({ shape: [values.length], values: Int32Array.from(values) });

async function withGolden<T>(name: string, use: (checkpoint: Checkpoint, spec: ModelSpec) => Promise<T>): Promise<T> {
  const checkpoint = await openCheckpoint(directoryFiles(path(`arch/${name}`)));
  try {
    return await use(checkpoint, readModelSpec(checkpoint.config, "config.json"));
  } finally {
    await checkpoint.close();
  }
}

test("every family that predicts tokens has a golden checkpoint here", async () => {
  const types = new Set<string>();
  for (const name of architectureNames) await withGolden(name, async (_, { modelType }) => types.add(modelType));
  // BERT predicts no token.
  expect([...types].sort()).toEqual(
    Object.keys(families)
      .filter((type) => type !== "bert")
      .sort(),
  );
});

describe.each(architectureNames)("%s", (name) => {
  test("logits are those of Hugging Face, and every parameter has a gradient", async () => {
    const { ids, nll, lastLogits } = architectureGolden(name);
    await withGolden(name, async (checkpoint, spec) => {
      const parameters = modelParameters(spec, checkpoint.tensors);
      const weights = await readWeights(checkpoint, parameters);
      using whole = tracedObjective(traceModel(spec, parameters, ids.length));
      const logits = (await whole.predict(weights, { tokens: int32(ids) })) as Float32Array;
      const row = (position: number) => logits.subarray(position * spec.vocabSize, (position + 1) * spec.vocabSize);
      for (const [i, expected] of nll.entries()) {
        expect(Math.abs(negativeLogLikelihood(row(i), ids[i + 1]) - expected), `token ${i}`).toBeLessThan(2e-3);
      }
      const last = row(ids.length - 1);
      for (const [id, logit] of lastLogits) expect(Math.abs(last[id] - logit), `logit ${id}`).toBeLessThan(2e-3);

      using objective = tracedObjective(traceModel(spec, parameters, nll.length));
      const batch = { tokens: int32(ids.subarray(0, -1)), label: int32(ids.subarray(1)) };
      const { loss, gradients } = await objective.lossAndGradients(weights, batch);
      expect(loss).toBeCloseTo(nll.reduce((a, b) => a + b) / nll.length, 4);
      expect([...gradients.keys()].sort()).toEqual([...weights.keys()].sort());
      const idle = [...gradients].flatMap(([name, gradient]) => (gradient.some((g) => g !== 0) ? [] : [name]));
      // Some experts are chosen by no token, and no gradient flows into a choice.
      expect(idle.filter((name) => !/\.experts\.|\.e_score_correction_bias$/.test(name))).toEqual([]);
    });
  });

  test("what is read as parameters is written back as the tensors of the checkpoint", async () => {
    await withGolden(name, async (checkpoint, spec) => {
      const parameters = modelParameters(spec, checkpoint.tensors);
      for (const { shape, role } of parameters) if (role === "inner") expect(shape).toHaveLength(2);
      const files = new Map([["config.json", new TextEncoder().encode(JSON.stringify(checkpoint.config))]]);
      const dtypeOf = (tensor: string) => checkpoint.tensors.get(tensor)!.dtype as StoredFloat;
      await writeWeights(memorySinks(files), parameters, await readWeights(checkpoint, parameters), dtypeOf);
      const written = await openCheckpoint(memoryFiles("written", files));
      expect([...written.tensors.keys()].sort()).toEqual([...checkpoint.tensors.keys()].sort());
      for (const [tensor, { shape }] of checkpoint.tensors) {
        expect(written.tensors.get(tensor)!.shape, tensor).toEqual(shape);
        const [found, expected] = [await written.read(tensor), await checkpoint.read(tensor)];
        expect(Buffer.from(found).equals(expected), tensor).toBe(true);
      }
    });
  });
});

test("a step that the tracer does not know is refused by its name before anything is traced", async () => {
  await withGolden("llama", async (_, spec) => {
    const odd = { do: "fold", of: "x", into: "x" } as unknown as Step;
    const blocks = spec.blocks.map((block, b) => (b === 1 ? { steps: [...block.steps, odd] } : block));
    expect(() => traceModel({ ...spec, blocks }, [], 8)).toThrow(
      'models of the type llama cannot be trained yet: nothing is known of the step "fold" in block 1',
    );
  });
});

test("windows longer than the learned positions are refused", async () => {
  await withGolden("opt", async (_, spec) => {
    const { table, offset } = spec.embedding.positions!;
    const most = table.shape[0] - offset;
    expect(() => traceModel(spec, [], most)).not.toThrow();
    expect(() => traceModel(spec, [], most + 1)).toThrow(`for a model of ${most} learned positions`);
  });
});

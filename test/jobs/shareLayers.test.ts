import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openCheckpoint } from "../../src/io/index.js";
import { directoryFiles, exportModel } from "../../src/io/index.node.js";
import { shareLayersToDirectory, trainToDirectory } from "../../src/jobs/index.js";
import { openBackend } from "../../src/kernels/index.js";
import { countParameters, describeDecoder, loadModel } from "../../src/model/index.js";
import { startEngine } from "../../src/train/engine/engine.js";
import { tracedObjective } from "../../src/train/engine/tracedObjective.js";
import { modelParameters, readWeights } from "../../src/train/index.js";
import { traceModel } from "../../src/train/trace/trace.js";
import { logits, randomTokens, relativeDifference } from "../compress/support.js";
import { path } from "../golden/golden.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";

const source = directoryFiles(path("arch/llama"));
const own = (name: string, layer: number) => name.replace(/layers\.\d+\./, `layers.${layer}.`);
const first = /^model\.layers\.0\./;
let directory: string;
const at = (name: string) => join(directory, name);
const open = (name: string) => openCheckpoint(directoryFiles(at(name)));

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "share-"));
  await shareLayersToDirectory(source, at("first"), { layers: "all", start: "first" });
  await shareLayersToDirectory(source, at("mean"), { layers: [0, 0] });
});
afterAll(() => rm(directory, { recursive: true, force: true }));

/** The golden model with the weights of both layers made by `make` of theirs. */
async function apart(make: (a: number, b: number) => number): Promise<MemoryCheckpoint> {
  const model = await MemoryCheckpoint.golden("llama");
  for (const name of [...model.tensors.keys()].filter((name) => first.test(name))) {
    const [a, b] = [model.values(name), model.values(own(name, 1))];
    const values = a.map((value, i) => make(value, b[i]));
    for (const layer of [0, 1]) model.set(own(name, layer), model.tensors.get(name)!.shape, values);
  }
  return model;
}

test("a model whose layers share is the model in which they have the same weights, held once", async () => {
  const [shared, mean] = [await open("first"), await open("mean")];
  try {
    const same = await apart((a) => a);
    expect(relativeDifference(await logits(shared), await logits(same))).toBe(0);
    const halves = await apart((a, b) => (a + b) / 2);
    expect(relativeDifference(await logits(mean), await logits(halves))).toBeLessThan(1e-5);
    expect([...shared.tensors.keys()].some((name) => name.includes("layers.1."))).toBe(false);

    const { spec } = (await describeDecoder(shared)).config;
    const counted = countParameters(spec, shared.tensors).total;
    const stored = [...shared.tensors.values()].reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
    expect(counted).toBe(stored);
    using backend = await openBackend("reference");
    using once = await loadModel(shared, backend, { weights: "f32" });
    using twice = await loadModel(same, backend, { weights: "f32" });
    expect(once.weightBytes.perToken).toBe(twice.weightBytes.perToken);
    const block = spec.blocks[0].steps.flatMap((step) => (step.do === "linear" ? step.maps : []));
    const bytes = block.reduce((sum, { map }) => sum + 4 * map.rows * map.cols, 0);
    expect(twice.weightBytes.loaded - once.weightBytes.loaded).toBeGreaterThanOrEqual(bytes);
  } finally {
    await shared.close();
    await mean.close();
  }
});

test("the gradient of shared weights is the sum of those of all layers that have them", async () => {
  await startEngine("wasm");
  const shared = await open("first");
  try {
    const tokens = randomTokens(4, 10);
    const batch = {
      tokens: { shape: [10], values: Int32Array.from(tokens) },
      label: { shape: [10], values: Int32Array.from(tokens.toReversed()) },
    };
    const gradientsOf = async (checkpoint: typeof shared | MemoryCheckpoint) => {
      const { spec } = (await describeDecoder(checkpoint)).config;
      const parameters = modelParameters(spec, checkpoint.tensors);
      using objective = tracedObjective(traceModel(spec, parameters, 10));
      return (await objective.lossAndGradients(await readWeights(checkpoint, parameters), batch)).gradients;
    };
    const [once, twice] = [await gradientsOf(shared), await gradientsOf(await apart((a) => a))];
    expect([...once.keys()].filter((name) => first.test(name)).length).toBeGreaterThan(8);
    for (const [name, gradient] of once) {
      const other = twice.get(own(name, 1));
      const sum = twice.get(name)!.map((g, i) => g + (first.test(name) ? other![i] : 0));
      expect(relativeDifference(gradient, sum), name).toBeLessThan(1e-4);
    }
  } finally {
    await shared.close();
  }
});

test("what was trained still shares, and an export gives every layer its own", async () => {
  await trainToDirectory(directoryFiles(at("first")), at("trained"), {
    from: "weights",
    ...{ steps: 1, batch: 1, window: 8, rate: 1e-2, warmup: 0 },
    tokens: async () => randomTokens(2, 64),
  });
  await exportModel(directoryFiles(at("trained")), at("export"), { format: "safetensors" });
  const [trained, exported] = [await open("trained"), await open("export")];
  try {
    expect(trained.artifact!.blocks![1].sharedWith).toBe(0);
    expect(exported.artifact!.blocks).toBeUndefined();
    const name = "model.layers.1.mlp.up_proj.weight";
    expect(trained.tensors.has(name)).toBe(false);
    expect(await exported.readFloat32(name)).toEqual(await trained.readFloat32(own(name, 0)));
    expect(relativeDifference(await logits(exported), await logits(trained))).toBe(0);
    expect(relativeDifference(await logits(trained), await logits(await apart((a) => a)))).toBeGreaterThan(1e-3);
  } finally {
    await trained.close();
    await exported.close();
  }
});

test("what cannot share is refused, in plans and in files", async () => {
  const refused = (layers: Parameters<typeof shareLayersToDirectory>[2]) =>
    shareLayersToDirectory(source, at("none"), layers);
  await expect(refused({ layers: "sandwich" })).rejects.toThrow(/between the first and the last of 2 layers/);
  await expect(refused({ layers: 3 })).rejects.toThrow(/give 2 to 2/);
  await expect(refused({ layers: [0, 1] })).rejects.toThrow(/no layer shares/);
  await expect(refused({ layers: [1, 1] })).rejects.toThrow(/layer 0 cannot have the weights of 1/);
  await expect(shareLayersToDirectory(directoryFiles(at("first")), at("none"), { layers: "all" })).rejects.toThrow(
    /share their weights already/,
  );
  await expect(
    shareLayersToDirectory(directoryFiles(path("arch/gemma2")), at("none"), { layers: "all" }),
  ).rejects.toThrow(/of another kind/);
  const broken = at("broken");
  await shareLayersToDirectory(source, broken, { layers: "all" });
  const file = join(broken, "rarefy.json");
  const artifact = JSON.parse(await readFile(file, "utf8"));
  artifact.blocks[1].sharedWith = 1;
  await writeFile(file, JSON.stringify(artifact));
  const checkpoint = await openCheckpoint(directoryFiles(broken));
  await expect(describeDecoder(checkpoint)).rejects.toThrow(/blocks\.1\.sharedWith/);
  await checkpoint.close();
});

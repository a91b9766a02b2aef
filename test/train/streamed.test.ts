import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Random } from "../../src/core/index.js";
import { type Checkpoint, type LoraAdapter, readAdapter } from "../../src/io/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { trainToDirectory } from "../../src/jobs/index.js";
import { describeDecoder } from "../../src/model/index.js";
import { startEngine } from "../../src/train/engine/engine.js";
import { tracedObjective } from "../../src/train/engine/tracedObjective.js";
import {
  adaptedObjective,
  adapterMethods,
  modelParameters,
  modulesOf,
  readWeights,
  streamedObjective,
} from "../../src/train/index.js";
import { traceModel } from "../../src/train/trace/trace.js";
import { compress, randomTokens, relativeDifference } from "../compress/support.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";

let quantised: Checkpoint;
let files: Map<string, Uint8Array>;
let directory: string;
beforeAll(async () => {
  await startEngine("wasm");
  const made = await compress(await MemoryCheckpoint.golden("llama"), {
    stages: [{ type: "quantize", method: "rtn", options: { bits: 4, groupSize: 32 } }],
    calibration: undefined,
  });
  ({ opened: quantised, files } = made);
  directory = await mkdtemp(join(tmpdir(), "streamed-"));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

describe.each(["lora", "ia3"])("%s over codes of 4 bits", (kind) => {
  test("has the loss and the gradients that it has over the same weights as numbers", async () => {
    expect(quantised.artifact!.tensors!["model.layers.0.self_attn.q_proj.weight"].encoding).toBe("grid");
    const { spec } = (await describeDecoder(quantised)).config;
    const { method } = await adapterMethods[kind]();
    const options = method.options.parse(kind === "lora" ? { rank: 2, alpha: 4 } : {});
    const modules = modulesOf(spec, ["q_proj", "down_proj"]);
    const window = 6;
    const parameters = modelParameters(spec, quantised.tensors);
    using whole = tracedObjective(traceModel(spec, parameters, window));
    const weights = await readWeights(quantised, parameters);
    const beside = adaptedObjective(whole, weights, modules, method, options, new Random(1));
    const base = { checkpoint: quantised, spec, window, device: "wasm" } as const;
    using streamed = await streamedObjective(base, modules, method, options, new Random(1));
    expect(streamed.first).toEqual(beside.first);
    const random = new Random(7);
    const values = new Map(
      Array.from(beside.first, ([name, first]) => [name, first.map((value) => value + 0.1 * random.normal())]),
    );
    const [tokens, next] = [randomTokens(1, 12), randomTokens(2, 12)];
    const batch = {
      tokens: { shape: [12], values: Int32Array.from(tokens) },
      label: { shape: [12], values: Int32Array.from(next) },
    };
    const [expected, actual] = [
      await beside.lossAndGradients(values, batch),
      await streamed.lossAndGradients(values, batch),
    ];
    expect(actual.loss).toBeCloseTo(expected.loss, 5);
    expect(await streamed.loss(values, batch)).toBeCloseTo(expected.loss, 5);
    expect([...actual.gradients.keys()]).toEqual([...expected.gradients.keys()]);
    for (const [name, gradient] of expected.gradients) {
      expect(relativeDifference(actual.gradients.get(name)!, gradient), name).toBeLessThan(1e-4);
    }
  });
});

test("finetune --stream writes the adapter that it writes with all weights in memory", async () => {
  const source = join(directory, "q4");
  await mkdir(source);
  for (const [name, bytes] of files) await writeFile(join(source, name), bytes);
  const train = async (stream: boolean) => {
    const output = join(directory, String(stream));
    const trained = await trainToDirectory(directoryFiles(source), output, {
      from: "weights",
      ...{ steps: 2, batch: 2, window: 8, rate: 1e-2, warmup: 0 },
      tokens: async () => randomTokens(2, 64),
      evaluationTokens: async () => randomTokens(3, 64),
      adapter: { kind: "lora", options: { rank: 2, alpha: 4 }, stream },
    });
    return { trained, adapter: (await readAdapter(directoryFiles(output))) as LoraAdapter };
  };
  const [streamed, whole] = [await train(true), await train(false)];
  expect(streamed.trained.perplexityAfter).toBeCloseTo(whole.trained.perplexityAfter!, 2);
  expect(streamed.trained.perplexityAfter).not.toBe(streamed.trained.perplexityBefore);
  for (const [name, { b }] of whole.adapter.modules)
    expect(relativeDifference(streamed.adapter.modules.get(name)!.b, b), name).toBeLessThan(1e-2);
});

test("what needs all weights in memory is refused", async () => {
  const train = (more: object, adapter: object = {}) =>
    trainToDirectory(directoryFiles(join(directory, "q4")), join(directory, "none"), {
      from: "weights",
      window: 8,
      tokens: async () => randomTokens(2, 64),
      adapter: { kind: "lora", options: {}, stream: true, ...adapter },
      ...more,
    });
  await expect(train({}, { merge: true })).rejects.toThrow(/`merge` needs all weights/);
  await expect(train({ distil: 0.5 })).rejects.toThrow(/`distil` needs all weights/);
});

test("settings and texts that nothing can be learnt with are refused by name", async () => {
  const stages: string[] = [];
  const train = (more: object) =>
    trainToDirectory(directoryFiles(join(directory, "q4")), join(directory, "none"), {
      from: "weights",
      window: 8,
      tokens: async () => randomTokens(2, 64),
      onProgress: ({ stage }) => void stages.push(stage),
      ...more,
    });
  await expect(train({ rate: -1 })).rejects.toThrow(/rate/);
  await expect(train({ steps: 1.5 })).rejects.toThrow(/steps/);
  await expect(train({ device: "gpu" })).rejects.toThrow(/device/);
  await expect(train({ from: "scratch" })).rejects.toThrow(/weights or random/);
  await expect(train({ window: 4096, tokens: async () => randomTokens(2, 20_000) })).rejects.toThrow(/was made for/);
  await expect(train({ tokens: async () => new Uint32Array(64).fill(99_999) })).rejects.toThrow(/token 99999/);
  // No weights are read for that.
  expect(stages).toEqual([]);
});

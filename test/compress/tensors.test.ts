import { describe, expect, test } from "vitest";
import { isTied } from "../../src/arch/index.js";
import type { RecipeInput } from "../../src/compress/index.js";
import { type Checkpoint, compressionOf, plainWeights } from "../../src/io/index.js";
import { type Backend, openBackend } from "../../src/kernels/index.js";
import { packedMatrixBytes } from "../../src/model/footprint.js";
import { countParameters, describeDecoder, loadModel } from "../../src/model/index.js";
import { generate } from "../../src/runtime/index.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";
import { compress, logits, morphemicTokens, randomTokens, relativeDifference } from "./support.js";

/** The same model with its factors multiplied out, under the names that other tools know. */
async function plain(opened: Checkpoint): Promise<MemoryCheckpoint> {
  const dense = new MemoryCheckpoint(opened.config as Record<string, unknown>, new Map());
  for (const { name, shape, readRows } of await plainWeights(opened)) {
    const rows = shape.length === 1 ? 1 : shape.slice(0, -1).reduce((all, size) => all * size, 1);
    dense.set(name, shape, await readRows(0, shape.length === 1 ? shape[0] : rows));
  }
  return dense;
}

const stages: Record<string, RecipeInput["stages"][number]> = {
  tt: { type: "tensors", method: "tt", keepRatio: 0.5 },
  "tt of three modes": {
    type: "tensors",
    method: "tt",
    tolerance: 0.5,
    options: { order: 3 },
    targets: ["**.up_proj.weight", "**.q_proj.weight"],
  },
  tucker: { type: "tensors", method: "tucker", keepRatio: 0.6 },
  htt: { type: "tensors", method: "htt", keepRatio: 0.5 },
  "low rank": { type: "lowRank", method: "svd", keepRatio: 0.4, targets: ["**.q_proj.weight", "**.up_proj.weight"] },
};

/** Maps with a tensor each; with q, k and v, gate and up in one; with columns first and biases; with heads in turns. */
describe.each(["llama", "phi3", "gpt2", "gpt_neox"])("factors in %s", (family) => {
  const tried = Object.entries(stages).filter(([name]) => family === "llama" || name === "tt" || name === "low rank");
  test.each(tried)("%s: runs as what they multiply out to", async (_, stage) => {
    const checkpoint = await MemoryCheckpoint.golden(family);
    const { opened, artifact } = await compress(checkpoint, { stages: [stage], calibration: undefined });
    const dense = await plain(opened);
    expect([...dense.tensors.keys()].sort()).toEqual([...checkpoint.tensors.keys()].sort());
    for (const [name, { shape }] of checkpoint.tensors) expect(dense.tensors.get(name)!.shape).toEqual(shape);
    const expected = await logits(dense);
    expect(relativeDifference(await logits(opened), expected)).toBeLessThan(2e-5);
    expect(relativeDifference(expected, await logits(checkpoint))).toBeGreaterThan(1e-3);
    const { config } = await describeDecoder(opened);
    const counted = countParameters(config.spec, opened.tensors).total;
    const saved = compressionOf(artifact)!
      .layers.flatMap(({ matrices }) => Object.values(matrices))
      .reduce((sum, { rows, cols, nonZeros }) => sum + rows * cols - nonZeros, 0);
    expect(counted).toBe(countParameters(config.spec, checkpoint.tensors).total - saved);
    expect(saved).toBeGreaterThan(0);
  });
});

async function logitsOn(backend: Backend, opened: Checkpoint, tokens: Uint32Array): Promise<Float32Array> {
  using model = await loadModel(opened, backend, { weights: "f32" });
  using cache = model.createCache(tokens.length);
  // In two pieces: one token is a row of its own.
  await model.forward(tokens.subarray(0, tokens.length - 1), cache, 0, { logits: "none" });
  return backend.read((await model.forward(tokens.subarray(tokens.length - 1), cache, tokens.length - 1))!);
}

describe("on kernels", () => {
  test("WebAssembly gives what the reference does, prompt and token, with factors of every kind and a tied head", async () => {
    using reference = await openBackend("reference");
    using wasm = await openBackend("wasm", { threads: 1 });
    const checkpoint = await MemoryCheckpoint.golden("llama");
    for (const [method, size] of [
      ["tt", { keepRatio: 0.4 }],
      ["tucker", { keepRatio: 0.5 }],
      ["htt", { keepRatio: 0.4 }],
    ] as const) {
      const embedding = { type: "embedding", method: "tt", keepRatio: 0.5 } as const;
      const tied = { ...checkpoint.config, tie_word_embeddings: true };
      const source = new MemoryCheckpoint(
        tied,
        new Map([...checkpoint.tensors].filter(([name]) => name !== "lm_head.weight")),
      );
      const { opened } = await compress(source, {
        stages: [{ type: "tensors", method, ...size }, embedding],
        calibration: undefined,
      });
      expect(isTied((await describeDecoder(opened)).config.spec)).toBe(true);
      const tokens = randomTokens(3, 9);
      const expected = await logitsOn(reference, opened, tokens);
      expect(relativeDifference(await logitsOn(wasm, opened, tokens), expected)).toBeLessThan(1e-4);
      expect(relativeDifference(expected, await logitsOn(reference, await plain(opened), tokens))).toBeLessThan(1e-4);
      using model = await loadModel(opened, wasm, { weights: "q8" });
      expect(model.tokensOnHost).toBe(true);
    }
  });
});

describe("embeddings", () => {
  test.each(["matrix", "tt", "word2ketxs", "word2ket"])(
    "%s: rows and head as the table that it makes, and its error",
    async (method) => {
      const checkpoint = await MemoryCheckpoint.golden("llama");
      const stage = { type: "embedding", method, keepRatio: 0.5 } as const;
      const { opened, artifact } = await compress(checkpoint, { stages: [stage], calibration: undefined });
      const record = compressionOf(artifact)!.embedding!;
      const name = "model.embed_tokens.weight";
      const [before, after] = [checkpoint.values(name), await opened.readFloat32(name)];
      let [lost, all] = [0, 0];
      for (let i = 0; i < before.length; i++) {
        lost += (before[i] - after[i]) ** 2;
        all += before[i] ** 2;
      }
      expect(record.relativeError! / Math.sqrt(lost / all)).toBeCloseTo(1, 4);
      expect(record.nonZeros).toBeLessThanOrEqual(before.length / 2);
      expect(opened.tensors.get(name)!.storedBytes).toBe(4 * record.nonZeros);
      expect(relativeDifference(await logits(opened), await logits(await plain(opened)))).toBeLessThan(2e-5);
    },
  );

  test("generates one token after the other, whose rows the host makes", async () => {
    const checkpoint = await MemoryCheckpoint.golden("llama");
    const stage = { type: "embedding", method: "tt", keepRatio: 0.5 } as const;
    const { opened } = await compress(checkpoint, { stages: [stage], calibration: undefined });
    const continued = async (of: Checkpoint) => {
      using backend = await openBackend("reference");
      using model = await loadModel(of, backend, { weights: "f32" });
      const ids: number[] = [];
      for await (const { id } of generate(model, [...randomTokens(5, 4)], { maxTokens: 6, stopIds: [] })) ids.push(id);
      return ids;
    };
    expect(await continued(opened)).toEqual(await continued(await plain(opened)));
  });
});

describe("morphemes", () => {
  async function source(tied: boolean): Promise<MemoryCheckpoint> {
    const checkpoint = await MemoryCheckpoint.golden("llama");
    if (tied) checkpoint.tensors.delete("lm_head.weight");
    const config = { ...checkpoint.config, tie_word_embeddings: tied };
    return Object.assign(new MemoryCheckpoint(config, checkpoint.tensors), { files: morphemicTokens() });
  }

  test.each([
    [true, { norm: false }],
    [true, { norm: true }],
    [true, { order: 2 }],
    [true, { order: 4 }],
    [false, { norm: true }],
  ])(
    "tied head %s, %j: runs on all kernels as what they multiply out to, and never makes it",
    async (tied, options) => {
      using reference = await openBackend("reference");
      using wasm = await openBackend("wasm", { threads: 2 });
      const stages: RecipeInput["stages"] = [{ type: "embedding", method: "morphte", rank: 3, options }];
      const { opened, artifact } = await compress(await source(tied), { stages, calibration: undefined });
      const { config } = await describeDecoder(opened);
      expect(isTied(config.spec)).toBe(tied);
      expect(compressionOf(artifact)!.embedding).toMatchObject({
        factors: "morphemes",
        relativeError: expect.any(Number),
      });
      const ids = randomTokens(3, 9);
      const expected = await logitsOn(reference, await plain(opened), ids);
      expect(relativeDifference(await logitsOn(reference, opened, ids), expected)).toBeLessThan(2e-5);
      expect(relativeDifference(await logitsOn(wasm, opened, ids), expected)).toBeLessThan(1e-4);
      expect(relativeDifference(await logits(opened), await logits(await plain(opened)))).toBeLessThan(2e-5);
      using model = await loadModel(opened, wasm, { weights: "f32" });
      expect(model.tokensOnHost).toBe(true);
      expect(model.weightBytes.perToken).toBe(packedMatrixBytes(opened, config.spec, "f32").perToken);
      wasm.takeCounters();
      using cache = model.createCache(4);
      await wasm.read((await model.forward(ids.subarray(0, 1), cache, 0))!);
      expect(wasm.takeCounters().weightBytesRead).toBe(model.weightBytes.perToken);
    },
  );

  test("without a tokenizer they are refused", async () => {
    const stages: RecipeInput["stages"] = [{ type: "embedding", method: "morphte", rank: 1 }];
    await expect(compress(await MemoryCheckpoint.golden("llama"), { stages, calibration: undefined })).rejects.toThrow(
      /tokenizer/,
    );
  });
});

describe("refused", () => {
  test.each<[string, RecipeInput["stages"], RegExp]>([
    ["no size", [{ type: "tensors", method: "tt" }], /give one of rank, keepRatio and tolerance/],
    ["two sizes", [{ type: "tensors", method: "tt", rank: 4, keepRatio: 0.5 }], /give one of/],
    ["a tolerance that is not taken", [{ type: "tensors", method: "tucker", tolerance: 0.1 }], /takes no tolerance/],
    [
      "modes of another width",
      [{ type: "tensors", method: "tt", rank: 4, options: { colModes: [8, 9] } }],
      /8 · 9 do not make/,
    ],
    [
      "odd modes",
      [
        {
          type: "tensors",
          method: "tt",
          rank: 4,
          options: { colModes: [32, 2], rowModes: [40, 4] },
          targets: ["**.up_proj.weight"],
        },
      ],
      /only multiples of 4/,
    ],
    ["larger factors", [{ type: "tensors", method: "tt", rank: 64 }], /no smaller than/],
    ["a method for embeddings", [{ type: "tensors", method: "word2ket", rank: 1 }], /is for embeddings/],
    ["a method for blocks", [{ type: "embedding", method: "tucker", rank: 4 }], /is for matrices of blocks/],
    [
      "what was pruned",
      [
        { type: "prune", method: "magnitude", pattern: 0.5 },
        { type: "tensors", method: "tt", rank: 4 },
      ],
      /would fill its zeros/,
    ],
    [
      "what is measured before",
      [
        { type: "prune", method: "wanda", pattern: 0.5 },
        { type: "embedding", method: "tt", rank: 4 },
      ],
      /compress that by itself/,
    ],
  ])("%s", async (_, stages, problem) => {
    await expect(compress(await MemoryCheckpoint.golden("llama"), { stages })).rejects.toThrow(problem);
  });

  test("word2ket under a tied head", async () => {
    const checkpoint = await MemoryCheckpoint.golden("llama");
    const tied = new MemoryCheckpoint({ ...checkpoint.config, tie_word_embeddings: true }, new Map(checkpoint.tensors));
    tied.tensors.delete("lm_head.weight");
    const stages = [{ type: "embedding", method: "word2ket", rank: 1 } as const];
    await expect(compress(tied, { stages })).rejects.toThrow(
      /the head is tied to the embedding, and nothing can be multiplied/,
    );
  });

  test("compressing factors again", async () => {
    const stages = [{ type: "tensors", method: "tt", rank: 4 } as const];
    const { opened } = await compress(await MemoryCheckpoint.golden("phi3"), { stages, calibration: undefined });
    await expect(compress(opened, { stages, calibration: undefined })).rejects.toThrow(/in factors already/);
  });
});

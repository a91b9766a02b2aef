import { expect, test } from "vitest";
import { FormatError, ProblemsError, type ProgressEvent, UsageError } from "../../src/core/index.js";
import { type Backend, type Matrix, openBackend, type RopeTable } from "../../src/kernels/index.js";
import { loadModel } from "../../src/model/index.js";
import { mostPassRows } from "../../src/model/internal.js";
import { weightFormats } from "../../src/pack/index.js";
import { architectureGolden, logitsOf, negativeLogLikelihood } from "../golden/golden.js";
import { MemoryCheckpoint } from "./memoryCheckpoint.js";

const reference = () => openBackend("reference");

test("all missing, mis-shaped and wrongly typed tensors are reported together, before any weight is read", async () => {
  const checkpoint = await MemoryCheckpoint.golden("qwen3");
  checkpoint.tensors.delete("model.layers.0.self_attn.k_norm.weight");
  checkpoint.tensors.delete("lm_head.weight");
  checkpoint.set("model.layers.1.mlp.down_proj.weight", [160, 64], new Float32Array(160 * 64));
  checkpoint.set("model.norm.weight", [64, 1], new Float32Array(64));
  checkpoint.set("model.layers.0.mlp.up_proj.weight", [160], new Float32Array(160));
  checkpoint.tensors.set("model.layers.1.self_attn.q_proj.weight", {
    name: "model.layers.1.self_attn.q_proj.weight",
    dtype: "I8",
    shape: [64, 64],
    bytes: new Uint8Array(64 * 64),
  });
  const backend = await reference();
  const failure = await loadModel(checkpoint, backend, { weights: "f32" }).catch((error: unknown) => error);
  expect(failure).toBeInstanceOf(ProblemsError);
  expect((failure as ProblemsError).message).toContain("memory: the tensors do not fit a qwen3 model of 2 layers");
  expect((failure as ProblemsError).problems).toEqual([
    "model.layers.0.self_attn.k_norm.weight [16] is missing",
    "model.layers.0.mlp.up_proj.weight is [160]; expected [160, 64]",
    "model.layers.1.self_attn.q_proj.weight is I8; expected F32, F16, BF16",
    "model.layers.1.mlp.down_proj.weight is [160, 64]; expected [64, 160]",
    "model.norm.weight is [64, 1]; expected [64]",
    "lm_head.weight [512, 64] is missing",
  ]);
  expect(checkpoint.reads).toEqual([]);
  expect(backend.memoryBytes()).toBe(0);
});

test("sizes that cannot be run are problems too", async () => {
  const checkpoint = await MemoryCheckpoint.golden("llama");
  checkpoint.config.intermediate_size = 158;
  const loading = loadModel(checkpoint, await reference(), { weights: "f32" });
  await expect(loading).rejects.toThrow("intermediateSize is 158; only multiples of 4 can be run");
});

test("an unknown architecture is refused by name", async () => {
  const checkpoint = await MemoryCheckpoint.golden("llama");
  checkpoint.config.model_type = "constructor";
  await expect(loadModel(checkpoint, await reference(), { weights: "f32" })).rejects.toThrow(FormatError);
});

/** Notes what regions of a backend are opened for, and what is loaded into them. */
function watchedRegions(backend: Backend) {
  const plans: { weightBytes: number }[] = [];
  const loads: Promise<Matrix>[] = [];
  const tables: RopeTable[] = [];
  const open = backend.openRegion;
  backend.openRegion = (plan) => {
    plans.push(plan);
    const region = open(plan);
    const { loadMatrix, loadRope } = region;
    const noted = <T>(list: T[], one: T): T => {
      list.push(one);
      return one;
    };
    region.loadMatrix = (...args) => noted(loads, loadMatrix(...args));
    region.loadRope = (...args) => noted(tables, loadRope(...args));
    return region;
  };
  return { plans, loads, tables };
}

test("one region is opened for exactly what is loaded; every stored byte is read once, in parts; progress ends at the total", async () => {
  for (const weights of ["f32", "bf16", "q8", "q4"] as const) {
    const checkpoint = await MemoryCheckpoint.golden("qwen2");
    const backend = await reference();
    const { plans, loads } = watchedRegions(backend);
    const events: ProgressEvent[] = [];
    const model = await loadModel(checkpoint, backend, {
      weights,
      structure: "dense",
      onProgress: (event) => events.push(event),
    });

    const packed = (await Promise.all(loads)).reduce((sum, matrix) => sum + matrix.byteLength, 0);
    expect(plans).toEqual([{ weightBytes: packed }]);
    expect(model.weightBytes.perToken).toBe(packed - weightFormats.f32.byteLength(512, 64));
    // 5 norms of 64 and biases of 128 on two layers.
    expect(model.weightBytes.loaded).toBe(packed + 4 * (5 * 64 + 2 * 128));

    const read = new Map<string, number>();
    for (const { name, byteLength } of checkpoint.reads) read.set(name, (read.get(name) ?? 0) + byteLength);
    for (const { name, bytes } of checkpoint.tensors.values()) expect(read.get(name), name).toBe(bytes.byteLength);
    expect(Math.max(...checkpoint.reads.map((r) => r.byteLength))).toBeLessThan(512 * 64 * 4);
    const total = [...checkpoint.tensors.values()].reduce((sum, { bytes }) => sum + bytes.byteLength, 0);
    expect(events.at(-1)).toMatchObject({ stage: "load weights", unit: "bytes", done: total, total });
  }
});

test("an aborted load stops with the signal's reason and reads no further", async () => {
  const checkpoint = await MemoryCheckpoint.golden("llama");
  const controller = new AbortController();
  const onProgress = () => controller.abort(new Error("enough"));
  const loading = loadModel(checkpoint, await reference(), { weights: "q8", signal: controller.signal, onProgress });
  await expect(loading).rejects.toThrow("enough");
  expect(checkpoint.reads.length).toBeLessThan(5);
});

/** A checkpoint with the first `vocabSize` tokens of another. */
async function withVocabulary(vocabSize: number): Promise<MemoryCheckpoint> {
  const checkpoint = await MemoryCheckpoint.golden("llama");
  for (const name of ["lm_head.weight", "model.embed_tokens.weight"]) {
    checkpoint.set(name, [vocabSize, 64], checkpoint.values(name).slice(0, vocabSize * 64));
  }
  checkpoint.config.vocab_size = vocabSize;
  return checkpoint;
}

test("a vocabulary that is no multiple of 4: the same logits, and the surplus columns can never win", async () => {
  const ids = architectureGolden("llama").ids;
  const whole = await loadModel(await MemoryCheckpoint.golden("llama"), await reference(), { weights: "f32" });
  const expected = await logitsOf(whole, ids);
  for (const vocabSize of [509, 510, 511]) {
    const model = await loadModel(await withVocabulary(vocabSize), await reference(), { weights: "f32" });
    expect(model.logitCols).toBe(512);
    for (const [position, row] of (await logitsOf(model, ids)).entries()) {
      expect(row.subarray(0, vocabSize)).toEqual(expected[position].subarray(0, vocabSize));
      expect([...row.subarray(vocabSize)]).toEqual(new Array(512 - vocabSize).fill(Math.fround(-1e30)));
      const nll = negativeLogLikelihood(row, 7);
      expect(nll).toBe(negativeLogLikelihood(row.subarray(0, vocabSize), 7));
    }
    const cache = model.createCache(4);
    await expect(model.forward(Uint32Array.of(vocabSize), cache, 0)).rejects.toThrow(`token ${vocabSize}`);
  }
});

test("tied embeddings are read from the packed head, others stay in the precision of the file", async () => {
  const embedded = async (backend: Backend, checkpoint: MemoryCheckpoint, weights: "f32" | "q4") => {
    const model = await loadModel(checkpoint, backend, { weights });
    const x = model.embed(Uint32Array.of(3, 500));
    return [...(await backend.read(x))];
  };
  const rows = (table: Float32Array) => [...table.slice(3 * 64, 4 * 64), ...table.slice(500 * 64, 501 * 64)];
  const name = "model.embed_tokens.weight";

  const untied = await MemoryCheckpoint.golden("llama");
  const stored = untied.values(name);
  expect(await embedded(await reference(), untied, "q4")).toEqual(rows(stored));
  untied.set(name, [512, 64], stored, "BF16");
  expect(await embedded(await reference(), untied, "q4")).toEqual(rows(untied.values(name)));
  untied.set(name, [512, 64], stored, "F16");
  expect(await embedded(await reference(), untied, "f32")).toEqual(rows(untied.values(name)));

  const tied = await MemoryCheckpoint.golden("llama");
  tied.config.tie_word_embeddings = true;
  tied.tensors.delete("lm_head.weight");
  const { pack, unpack } = weightFormats.q4;
  expect(await embedded(await reference(), tied, "q4")).toEqual(rows(unpack(pack(stored, 512, 64), 512, 64)));
});

test("biases on every projection are used: o, gate, up and down as q, k and v", async () => {
  const ids = architectureGolden("llama").ids;
  const plain = await loadModel(await MemoryCheckpoint.golden("llama"), await reference(), { weights: "f32" });
  const expected = await logitsOf(plain, ids);
  const biased = async (changed?: string) => {
    const checkpoint = await MemoryCheckpoint.golden("llama");
    Object.assign(checkpoint.config, { attention_bias: true, mlp_bias: true });
    for (const layer of [0, 1]) {
      for (const [module, rows] of [
        ["self_attn.q_proj", 64],
        ["self_attn.k_proj", 32],
        ["self_attn.v_proj", 32],
        ["self_attn.o_proj", 64],
        ["mlp.gate_proj", 160],
        ["mlp.up_proj", 160],
        ["mlp.down_proj", 64],
      ] as const) {
        const bias = new Float32Array(rows).map((_, i) => (module === changed ? Math.sin(i + 1) : 0));
        checkpoint.set(`model.layers.${layer}.${module}.bias`, [rows], bias);
      }
    }
    return logitsOf(await loadModel(checkpoint, await reference(), { weights: "f32" }), ids);
  };
  expect(await biased()).toEqual(expected);
  for (const module of ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]) {
    expect(await biased(module), module).not.toEqual(expected);
  }
  for (const module of ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]) {
    expect(await biased(module), module).not.toEqual(expected);
  }
});

test("a cache is bounded before anything is allocated, and rotary tables grow with the positions that are met", async () => {
  const checkpoint = await MemoryCheckpoint.golden("llama");
  for (const id of ["reference", "wasm"] as const) {
    using backend = await openBackend(id);
    const { tables } = watchedRegions(backend);
    const model = await loadModel(checkpoint, backend, { weights: "f32" });
    expect(() => model.createCache(2 ** 40, { allowBeyondTraining: true })).toThrow(UsageError);
    expect(() => model.createCache(2 ** 40, { allowBeyondTraining: true })).toThrow(
      /keys of one layer .* smaller capacity/,
    );
    expect(tables).toEqual([]);
    using cache = model.createCache(2 ** 16, { allowBeyondTraining: true });
    await model.forward(Uint32Array.of(1, 2), cache, 0);
    await model.forward(Uint32Array.of(3), cache, 1000);
    expect(tables.map(({ positions }) => positions)).toEqual([256, 1024]);
  }
});

test("layers that a config calls very wide are run a few rows at a time", async () => {
  const { spec } = (await loadModel(await MemoryCheckpoint.golden("llama"), await reference(), { weights: "f32" }))
    .config;
  expect(mostPassRows(spec, 128)).toBe(128);
  const wide = JSON.parse(JSON.stringify(spec, (_, value) => (value === 160 ? 2 ** 20 : value))) as typeof spec;
  expect(mostPassRows(wide, 128)).toBeLessThan(64);
  expect(mostPassRows(wide, 128)).toBeGreaterThan(7);
});

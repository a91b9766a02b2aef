import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";

// Before the engine is imported: below Node 24 it looks for this class whenever it meets a 64-bit float.
vi.hoisted(() => {
  (globalThis as { Float16Array?: unknown }).Float16Array ??= class extends Float32Array {};
});

import { UsageError } from "../../src/core/index.js";
import { type Backend, openBackend } from "../../src/kernels/index.js";
import { loadModel, type Model } from "../../src/model/index.js";
import {
  generate,
  KvPages,
  lookupDraft,
  parseAttention,
  parseExits,
  parseKv,
  runTogether,
  Sequence,
  type SequenceOptions,
} from "../../src/runtime/index.js";
import { startEngine } from "../../src/train/engine/engine.js";
import { tracedObjective } from "../../src/train/engine/tracedObjective.js";
import { readWeights, trainableConfig } from "../../src/train/languageModel.js";
import { modelParameters } from "../../src/train/models/parameters.js";
import { traceModel } from "../../src/train/trace/trace.js";
import { logitsOf } from "../golden/golden.js";
import type { MemoryCheckpoint } from "../model/memoryCheckpoint.js";
import { prunesContext } from "../support/prunesContext.js";
import { threeBackends } from "../support/threeBackends.js";
import { arbitraryText, distance, NaiveLlama } from "./naiveLlama.js";

const length = 40;
const text = arbitraryText(length);
const close = 2e-4;

const loaded = (checkpoint: MemoryCheckpoint, backend: Backend) => loadModel(checkpoint, backend, { weights: "f32" });

/** Logits after every token, and which positions each layer still holds after each, in f64 and one query at a time. */
function naively(checkpoint: MemoryCheckpoint) {
  const naive = new NaiveLlama(checkpoint);
  const layers = Array.from({ length: naive.layers }, (_, layer) => {
    const of = (name: string) => checkpoint.values(`model.layers.${layer}.self_attn.interaction_${name}`);
    return {
      query: of("query.weight"),
      key: of("key.weight"),
      bias: of("bias")[0],
      keys: [] as Float64Array[],
      held: [] as number[],
    };
  });
  let nearest = Number.POSITIVE_INFINITY;
  naive.onInput = (layer, input) => {
    const own = layers[layer];
    const rank = own.query.length / input.length;
    const project = (matrix: Float32Array) =>
      Float64Array.from({ length: rank }, (_, r) =>
        input.reduce((sum, value, c) => sum + matrix[r * input.length + c] * value, 0),
      );
    const query = project(own.query);
    own.held = own.held.filter((position) => {
      const s = own.keys[position].reduce((sum, value, r) => sum + value * query[r], 0) / Math.sqrt(rank) + own.bias;
      nearest = Math.min(nearest, Math.abs(s));
      return s > 0;
    });
    own.held.push(own.keys.length);
    own.keys.push(project(own.key));
  };
  const logits: Float64Array[] = [];
  const held: number[][][] = [];
  for (const [at, id] of text.entries()) {
    const step = naive.step(id, at, (layer) => layers[layer].held.map((position) => ({ position, turn: position })));
    logits.push(step.logits);
    held.push(layers.map((layer) => [...layer.held]));
  }
  return { logits, held, nearest };
}

/** Runs tokens in runs of these rows. @returns logits after each run */
async function inRuns(model: Model, rows: readonly number[], options: SequenceOptions = {}) {
  using sequence = new Sequence(model, length, options);
  const after: { at: number; logits: Float32Array; byteLength: number }[] = [];
  for (const count of rows) {
    const logits = await sequence.run(text.subarray(sequence.length, sequence.length + count));
    const at = sequence.length - 1;
    after.push({ at, logits: (await model.backend.read(logits)).slice(0, 512), byteLength: sequence.byteLength });
    model.backend.release(logits);
  }
  return after;
}

const oneByOne = new Array<number>(length).fill(1);

describe.each(Object.entries(threeBackends))("context pruning on %s", (_, open) => {
  let backend: Backend;
  let checkpoint: MemoryCheckpoint;
  let model: Model;
  let expected: ReturnType<typeof naively>;
  beforeAll(async () => {
    backend = await open();
    checkpoint = await prunesContext("llama");
    model = await loaded(checkpoint, backend);
    expected = naively(checkpoint);
  });
  afterAll(() => backend[Symbol.dispose]());

  test("the case is one: much goes, not all, and nothing is too near to tell", () => {
    const kept = expected.held.at(-1)!.map((positions) => positions.length);
    for (const count of kept) expect(count).toBeLessThan(0.8 * length);
    expect(Math.max(...kept)).toBeGreaterThan(3);
    expect(new Set(kept).size).toBeGreaterThan(1);
    expect(expected.nearest).toBeGreaterThan(1e-5);
  });

  test.each([
    ["dropped for good, token by token", {}, oneByOne],
    ["dropped for good, a prompt and then tokens", {}, [17, 1, 1, 9, 1, 11]],
    ["dropped for good, a prompt in passes", { passTokens: 6 }, [31, 1, 8]],
    ["masked and kept, a prompt and then tokens", { kv: parseKv("full") }, [17, 1, 1, 9, 1, 11]],
  ] as const)("%s: the definition in f64", async (_name, options, rows) => {
    for (const { at, logits } of await inRuns(model, rows, options))
      expect(distance(logits, expected.logits[at]), `token ${at}`).toBeLessThan(close);
  });

  test("a pass over all, and in pieces, sees what each token sees", async () => {
    for (const chunk of [length, 7]) {
      const rows = await logitsOf(model, text, chunk);
      for (const [at, logits] of rows.entries())
        expect(distance(logits.slice(0, 512), expected.logits[at])).toBeLessThan(close);
    }
  });

  test("memory and reads follow what is held", async () => {
    using dropped = new Sequence(model, length);
    using kept = new Sequence(model, length, { kv: parseKv("full") });
    const bytes = { dropped: 0, kept: 0 };
    for (const [at, id] of text.entries()) {
      for (const [name, sequence] of Object.entries({ dropped, kept }) as ["dropped" | "kept", Sequence][]) {
        backend.takeCounters();
        backend.release(await sequence.run(Uint32Array.of(id)));
        await backend.flush();
        bytes[name] = backend.takeCounters().kvBytesRead;
      }
      if (at < length - 1) continue;
      // What the last token saw, exactly: the keys and values that each layer held before it, and its own.
      using cache = model.createCache(1);
      const { heads, key, value } = cache.spec.layers[0];
      const before = expected.held[at - 1].map((positions) => positions.length + 1);
      const all = before.reduce((sum, count) => sum + count, 0) * 4 * heads * (key + value);
      expect(bytes.dropped).toBeLessThanOrEqual(all);
      expect(bytes.kept).toBe(before.length * length * 4 * heads * (key + value));
      expect(bytes.dropped).toBeLessThan(0.8 * bytes.kept);
    }
  });
});

describe("the cache", () => {
  let backend: Backend;
  let model: Model;
  beforeAll(async () => {
    backend = await openBackend("reference");
    model = await loaded(await prunesContext("llama", { bias: 0.4 }), backend);
  });
  afterAll(() => backend[Symbol.dispose]());

  test("has room for what its layers hold, each for its own, and gives back what a prompt has needed", async () => {
    const many = Uint32Array.from({ length: 140 }, (_, i) => (i * 97 + 13) % 512);
    const before = backend.memoryBytes();
    using sequence = new Sequence(model, 256);
    backend.release(await sequence.run(many.subarray(0, 128)));
    const afterPrompt = sequence.byteLength;
    for (const id of many.subarray(128, 140)) backend.release(await sequence.run(Uint32Array.of(id)));
    const { byteLength } = sequence;
    using whole = model.createCache(256);
    expect(byteLength).toBeLessThan(0.5 * afterPrompt);
    expect(byteLength).toBeLessThan(0.3 * whole.byteLength);
    // What the backend says it holds: one cache of the sequence, and not those that it has outgrown.
    expect(backend.memoryBytes() - before - whole.byteLength).toBeLessThan(byteLength + 2e6);
    sequence[Symbol.dispose]();
  });

  test("goes on after the beginning as if nothing had been", async () => {
    using sequence = new Sequence(model, length);
    const first = await sequence.run(text);
    const values = await backend.read(first);
    expect(sequence.canRewind(20)).toBe(false);
    sequence.rewind(0);
    const again = await sequence.run(text);
    expect(await backend.read(again)).toEqual(values);
    for (const logits of [first, again]) backend.release(logits);
  });

  test("that keeps all can go back anywhere: what later tokens dropped is there again", async () => {
    using sequence = new Sequence(model, length, { kv: parseKv("full") });
    backend.release(await sequence.run(text.subarray(0, 12)));
    const first = await sequence.run(text.subarray(12, 13));
    const values = await backend.read(first);
    backend.release(await sequence.run(text.subarray(13)));
    sequence.rewind(12);
    const again = await sequence.run(text.subarray(12, 13));
    expect(distance(await backend.read(again), values)).toBeLessThan(1e-6);
    for (const logits of [first, again]) backend.release(logits);
  });
});

describe("a bias above all interactions", () => {
  test("is the dense model", async () => {
    using backend = await openBackend("reference");
    const checkpoint = await prunesContext("llama", { bias: 1e6 });
    const model = await loaded(checkpoint, backend);
    const pruned = await inRuns(model, [17, 1, 22]);
    checkpoint.artifact = undefined;
    using other = await openBackend("reference");
    const dense = await inRuns(await loaded(checkpoint, other), [17, 1, 22]);
    for (const [i, { logits }] of pruned.entries()) expect(logits).toEqual(dense[i].logits);
  });
});

/** Windows, sinks, learned positions, experts, maps that share a tensor. */
const families = ["gemma2", "gpt_oss", "gpt2", "mixtral", "phi3"];
describe.each(families)("a %s model", (family) => {
  test("runs as the trainer sees it, with the positions that are left", async () => {
    await startEngine("wasm");
    const checkpoint = await prunesContext(family);
    const { spec } = await trainableConfig(checkpoint);
    const parameters = modelParameters(spec, checkpoint.tensors);
    const weights = await readWeights(checkpoint, parameters);
    const run = 24;
    using objective = tracedObjective(traceModel(spec, parameters, run));
    const tokens = { shape: [run], values: Int32Array.from(text.subarray(0, run)) };
    const traced = await objective.predict(weights, { tokens });
    using backend = await openBackend("wasm", { threads: 1 });
    const model = await loaded(checkpoint, backend);
    const vocabulary = traced.length / run;
    for (const { at, logits } of await inRuns(model, [11, 1, 1, 8, 1, 1, 1])) {
      const expected = traced.subarray(at * vocabulary, (at + 1) * vocabulary);
      expect(distance(logits.subarray(0, vocabulary), expected), `token ${at}`).toBeLessThan(2e-3);
    }
  });
});

describe("what goes with it", () => {
  let backend: Backend;
  let model: Model;
  let tokens: number[];
  const prompt = text.subarray(0, 20);
  const options = { maxTokens: 12, temperature: 0 };
  const generated = async (more: object = {}) => {
    const ids: number[] = [];
    for await (const { id } of generate(model, prompt, { ...options, ...more })) ids.push(id);
    return ids;
  };
  beforeAll(async () => {
    backend = await openBackend("wasm", { threads: 1 });
    model = await loaded(await prunesContext("llama"), backend);
    tokens = await generated();
  });
  afterAll(() => backend[Symbol.dispose]());

  test("other sequences in one pass", async () => {
    const texts = [text.subarray(0, 11), text.subarray(5, 33)];
    const sequences = texts.map(() => new Sequence(model, length));
    const single = [];
    for (const own of texts) {
      using sequence = new Sequence(model, length);
      backend.release(await sequence.run(own.subarray(0, -1)));
      const logits = await sequence.run(own.subarray(-1));
      single.push(await backend.read(logits));
      backend.release(logits);
    }
    for (const [s, sequence] of sequences.entries()) backend.release(await sequence.run(texts[s].subarray(0, -1)));
    const parts = sequences.map((sequence, s) => ({
      sequence,
      tokens: texts[s].subarray(-1),
      left: 0,
      logits: "last" as const,
    }));
    const { logits } = await runTogether(parts);
    for (const s of [0, 1]) expect(distance(await backend.read(logits!.rowRange(s, 1)), single[s])).toBeLessThan(1e-4);
    for (const sequence of sequences) sequence[Symbol.dispose]();
  });

  test("caches that keep all, in f32 and in 8 bits, speculation in the first, early exit", async () => {
    expect(await generated({ kv: parseKv("full") })).toEqual(tokens);
    expect(await generated({ kv: parseKv("full"), draft: lookupDraft() })).toEqual(tokens);
    expect((await generated({ kv: parseKv("int8") })).length).toBe(tokens.length);
    const exits = (rule: string) => ({ exits: parseExits(rule) });
    expect(await generated(exits("top:least=1,from=1,every=1,fill=propagate"))).toEqual(tokens);
    expect(await generated({ kv: parseKv("full"), ...exits("top:least=0.02,from=1,every=1") })).toHaveLength(
      tokens.length,
    );
    expect(await generated(exits("top:least=0,from=1,every=1,fill=propagate"))).toHaveLength(tokens.length);
  });

  test("what does not is refused by name", async () => {
    const refused = (options: SequenceOptions, name: string) => {
      expect(() => new Sequence(model, length, options)).toThrow(UsageError);
      expect(() => new Sequence(model, length, options)).toThrow(name);
    };
    refused({ kv: parseKv("h2o:budget=8") }, "h2o:budget=8");
    refused({ attention: parseAttention("window:size=8") }, "window:size=8");
    refused({ attention: parseAttention("quest") }, "quest");
    refused({ exits: parseExits("top:least=0.9,from=1,every=1") }, "fill=propagate");
    using pages = new KvPages(model, { maxBytes: 1e7, context: length });
    refused({ pages }, "pages");
    await expect(generated({ draft: lookupDraft() })).rejects.toThrow(UsageError);
    using other = await openBackend("reference");
    const checkpoint = await prunesContext("llama");
    checkpoint.artifact = undefined;
    const dense = await loaded(checkpoint, other);
    expect(() => new Sequence(dense, length, { kv: parseKv("pruned") })).toThrow(
      "was not trained to prune its context",
    );
  });

  test.each([[{ contextRank: 6 }, "blocks.0.contextRank"]])(
    "a description that cannot be is refused: %o",
    async (change, field) => {
      const checkpoint = await prunesContext("llama");
      checkpoint.artifact = {
        rarefy: 2,
        blocks: checkpoint.artifact!.blocks!.map((block) => ({ ...block, ...change })),
      };
      await expect(loaded(checkpoint, backend)).rejects.toThrow(field);
    },
  );

  test("latent attention, and tensors that are missing, are refused by name", async () => {
    await expect(prunesContext("deepseek_v3")).rejects.toThrow("contextRank");
    const checkpoint = await prunesContext("llama");
    checkpoint.tensors.delete("model.layers.1.self_attn.interaction_key.weight");
    await expect(loaded(checkpoint, backend)).rejects.toThrow("interaction_key");
  });
});

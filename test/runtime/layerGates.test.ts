import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";

// Before the engine is imported: below Node 24 it looks for this class whenever it meets a 64-bit float.
vi.hoisted(() => {
  (globalThis as { Float16Array?: unknown }).Float16Array ??= class extends Float32Array {};
});

import { type BlockGates, parseModelConfig } from "../../src/arch/index.js";
import { gatedWeights } from "../../src/arch/internal.js";
import { FormatError, UsageError } from "../../src/core/index.js";
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
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";
import { gatesLayers } from "../support/gatesLayers.js";
import { noGpu, threeBackends } from "../support/threeBackends.js";
import { arbitraryText, distance, NaiveLlama } from "./naiveLlama.js";

const length = 40;
const text = arbitraryText(length);
const close = 2e-4;

const loaded = (checkpoint: MemoryCheckpoint, backend: Backend) => loadModel(checkpoint, backend, { weights: "f32" });

/** Logits after every token, and what went through every gate, in f64, one query at a time, by factors of 0 and 1. */
function naively(checkpoint: MemoryCheckpoint, { units, kind }: BlockGates) {
  const naive = new NaiveLlama(checkpoint);
  const parts = { block: ["block"], attention: ["attention"], mlp: ["mlp"], sublayers: ["attention", "mlp"] }[units];
  const tensor = { block: "layer_gate", attention: "attention_gate", mlp: "mlp_gate" } as const;
  let nearest = Number.POSITIVE_INFINITY;
  let at = 0;
  /** [position][`${layer}.${part}`] */
  const open: Map<string, boolean>[] = [];
  naive.gate = (layer, part, x) => {
    if (!parts.includes(part)) return 1;
    const [weight, [bias]] = ["weight", "bias"].map(
      (what) => naive.weights.get(`model.layers.${layer}.${tensor[part]}.${what}`)!,
    );
    const size = Math.sqrt(x.reduce((sum, value) => sum + value * value, 0) / x.length + 1e-6);
    const z = x.reduce((sum, value, c) => sum + (value / size) * weight[c], bias);
    if (kind === "soft") return 1 / (1 + Math.exp(-z));
    nearest = Math.min(nearest, Math.abs(z));
    open[at].set(`${layer}.${part}`, z > 0);
    return z > 0 ? 1 : 0;
  };
  const seen = (layer: number, position: number) =>
    (open[position].get(`${layer}.block`) ?? true) && (open[position].get(`${layer}.attention`) ?? true);
  const logits: Float64Array[] = [];
  for (const [position, id] of text.entries()) {
    at = position;
    open.push(new Map());
    const { logits: after } = naive.step(id, position, (layer) =>
      Array.from({ length: position + 1 }, (_, p) => ({ position: p, turn: p })).filter(
        (one) => one.position === position || seen(layer, one.position),
      ),
    );
    logits.push(after);
  }
  return { logits, open, nearest, seen };
}

/** Runs tokens in runs of these rows. @returns logits after each run */
async function inRuns(model: Model, rows: readonly number[], options: SequenceOptions = {}) {
  using sequence = new Sequence(model, length, options);
  const after: { at: number; logits: Float32Array }[] = [];
  for (const count of rows) {
    const logits = await sequence.run(text.subarray(sequence.length, sequence.length + count));
    after.push({ at: sequence.length - 1, logits: (await model.backend.read(logits)).slice(0, 512) });
    model.backend.release(logits);
  }
  return after;
}

const oneByOne = new Array<number>(length).fill(1);
const kinds: BlockGates[] = [
  ...(["block", "attention", "mlp", "sublayers"] as const).map((units) => ({ units, kind: "hard" as const })),
  { units: "block", kind: "soft" },
  { units: "sublayers", kind: "soft" },
];

describe.each(Object.entries(threeBackends))("gates on %s", (name, open) => {
  // Software in place of a GPU takes its time.
  const some =
    name === "webgpu" ? kinds.filter((one) => (one.kind === "hard" ? "sublayers" : "block") === one.units) : kinds;
  describe.each(some)("$kind in front of $units", (gates) => {
    let backend: Backend;
    let model: Model;
    let expected: ReturnType<typeof naively>;
    beforeAll(async () => {
      backend = await open();
      const checkpoint = await gatesLayers("llama", gates);
      model = await loaded(checkpoint, backend);
      expected = naively(checkpoint, gates);
    });
    afterAll(() => backend[Symbol.dispose]());

    test("the case is one: some go through, some past, and nothing is too near to tell", () => {
      if (gates.kind === "soft") return expect(model.takeGateCounts).toBeDefined();
      const all = expected.open.flatMap((one) => [...one.values()]);
      const share = all.filter(Boolean).length / all.length;
      expect(share).toBeGreaterThan(0.1);
      expect(share).toBeLessThan(0.9);
      expect(expected.nearest).toBeGreaterThan(1e-5);
    });

    test.each([
      ["token by token", oneByOne],
      ["a prompt and then tokens", [17, 1, 1, 9, 1, 11]],
      ["all together", [length]],
    ])("%s: the definition in f64", async (_name, rows) => {
      for (const { at, logits } of await inRuns(model, rows))
        expect(distance(logits, expected.logits[at]), `token ${at}`).toBeLessThan(close);
    });

    test("what is not let through is neither read nor attended to, and counted", async () => {
      const { spec } = model.config;
      const bytesOf = (steps: (typeof spec.blocks)[0]["steps"]) =>
        4 * gatedWeights({ steps }, { from: 0, to: steps.length });
      const head = 4 * 512 * spec.hiddenSize;
      using cache = model.createCache(1);
      using sequence = new Sequence(model, length);
      backend.release(await sequence.run(text.subarray(0, 12)));
      model.takeGateCounts!();
      for (let at = 12; at < length; at++) {
        await backend.flush();
        backend.takeCounters();
        backend.release(await sequence.run(text.subarray(at, at + 1)));
        await backend.flush();
        const { weightBytesRead, kvBytesRead } = backend.takeCounters();
        let [weights, kv, met, offered] = [head, 0, 0, 0];
        for (const [layer, block] of spec.blocks.entries()) {
          weights += bytesOf(block.steps);
          for (const { part, from, to } of block.gates!) {
            const own = bytesOf(block.steps.slice(from, to));
            const goes = expected.open[at].get(`${layer}.${part}`) ?? true;
            weights -= goes ? 0 : own;
            offered += own / 4;
            met += goes ? own / 4 : 0;
          }
          const { heads, key, value } = cache.spec.layers[layer];
          const kept = Array.from({ length: at + 1 }, (_, p) => p).filter((p) => expected.seen(layer, p)).length;
          if (expected.seen(layer, at)) kv += 4 * heads * (key + value) * kept;
        }
        expect(weightBytesRead, `token ${at}`).toBe(weights);
        expect(kvBytesRead, `token ${at}`).toBe(kv);
        expect(model.takeGateCounts!()).toEqual({ offered, met });
      }
    });
  });

  test.each(some)("$kind in front of $units, all open: the model without them", async (gates) => {
    using backend = await open();
    const checkpoint = await gatesLayers("llama", { ...gates, bias: 1e6 });
    const whole = await inRuns(await loaded(checkpoint, backend), [17, 1, 22]);
    using other = await open();
    const dense = await inRuns(await loaded(await MemoryCheckpoint.golden("llama"), other), [17, 1, 22]);
    for (const [i, { logits }] of whole.entries()) {
      // A GPU joins the norm of one row with the product before it, and a question in between keeps them apart.
      if (name === "webgpu") expect(distance(logits, dense[i].logits)).toBeLessThan(1e-5);
      else expect(logits).toEqual(dense[i].logits);
    }
  });
});

test.skipIf(noGpu === undefined)(`WebGPU (${noGpu})`, () => {});

test("all closed: what the embedding and the head make of a token", async () => {
  using backend = await openBackend("reference");
  const model = await loaded(await gatesLayers("llama", { bias: -1e6 }), backend);
  const [{ logits }] = await inRuns(model, [length]);
  const x = model.embed(text.subarray(length - 1));
  const head = model.head(x);
  expect((await backend.read(head)).slice(0, 512)).toEqual(logits);
  for (const one of [x, head]) backend.release(one);
});

/** Windows, sinks, learned positions, experts, maps that share a tensor, one norm for both halves, latents. */
const families: [string, BlockGates["units"]][] = [
  ["gemma2", "sublayers"],
  ["mistral", "attention"],
  ["gpt_oss", "sublayers"],
  ["gpt2", "sublayers"],
  ["mixtral", "block"],
  ["phi3", "attention"],
  ["deepseek_v3", "block"],
  ["gpt_neox", "block"],
];
describe.each(families)("a %s model with gates in front of %s", (family, units) => {
  test("runs as the trainer sees it", async () => {
    await startEngine("wasm");
    const checkpoint = await gatesLayers(family, { units });
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
    const { offered, met } = model.takeGateCounts!();
    expect(met).toBeGreaterThan(0.2 * offered);
    expect(met).toBeLessThan(0.95 * offered);
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
    model = await loaded(await gatesLayers("llama", { units: "sublayers" }), backend);
    tokens = await generated();
  });
  afterAll(() => backend[Symbol.dispose]());

  test("other sequences in one pass", async () => {
    const texts = [text.subarray(0, 11), text.subarray(5, 33), text.subarray(2, 9)];
    const sequences = texts.map(() => new Sequence(model, length));
    const single = [];
    for (const own of texts) {
      using sequence = new Sequence(model, length);
      const logits = await sequence.run(own);
      single.push(await backend.read(logits));
      backend.release(logits);
    }
    for (const [s, sequence] of sequences.entries()) backend.release(await sequence.run(texts[s].subarray(0, 4)));
    const parts = sequences.map((sequence, s) => ({
      sequence,
      tokens: texts[s].subarray(4),
      left: 0,
      logits: "last" as const,
    }));
    const { logits } = await runTogether(parts);
    for (const s of texts.keys())
      expect(distance(await backend.read(logits!.rowRange(s, 1)), single[s])).toBeLessThan(1e-4);
    for (const sequence of sequences) sequence[Symbol.dispose]();
  });

  test("going back: what was let through before counts, and nothing later", async () => {
    using sequence = new Sequence(model, length);
    backend.release(await sequence.run(text.subarray(0, 12)));
    const first = await sequence.run(text.subarray(12, 14));
    const values = await backend.read(first);
    backend.release(await sequence.run(text.subarray(14)));
    sequence.rewind(12);
    const again = await sequence.run(text.subarray(12, 14));
    expect(await backend.read(again)).toEqual(values);
    for (const logits of [first, again]) backend.release(logits);
  });

  test("speculation, caches of 8 bits and in groups, early exit", async () => {
    expect(await generated({ draft: lookupDraft() })).toEqual(tokens);
    for (const kv of ["full", "int8", "kivi:bits=4,residual=8"])
      expect((await generated({ kv: parseKv(kv) })).slice(0, 3), kv).toEqual(tokens.slice(0, 3));
    const exits = (rule: string) => ({ exits: parseExits(rule) });
    for (const fill of ["exact", "propagate"]) {
      expect(await generated(exits(`top:least=1,from=1,every=1,fill=${fill}`))).toEqual(tokens);
      expect(await generated(exits(`top:least=0.02,from=1,every=1,fill=${fill}`))).toHaveLength(tokens.length);
    }
  });

  test("what does not is refused by name", async () => {
    const refused = (options: SequenceOptions, name: string) => {
      expect(() => new Sequence(model, length, options)).toThrow(UsageError);
      expect(() => new Sequence(model, length, options)).toThrow(name);
    };
    refused({ kv: parseKv("h2o:budget=8") }, "h2o:budget=8");
    refused({ attention: parseAttention("window:size=8") }, "window:size=8");
    refused({ attention: parseAttention("quest") }, "quest");
    using pages = new KvPages(model, { maxBytes: 1e7, context: length });
    refused({ pages }, "pages");
    using one = new Sequence(model, length);
    using other = new Sequence(model, length);
    backend.release(await one.run(prompt));
    expect(() => other.copyFrom(one, 5)).toThrow(UsageError);
    using cache = model.createCache(length);
    await expect(model.forward(prompt, cache, 0, { slot: 1 })).rejects.toThrow("gates let tokens past attention");
  });

  test("gates in front of MLPs alone leave keys and values as they are, and go with all", async () => {
    using backend = await openBackend("wasm", { threads: 1 });
    const model = await loaded(await gatesLayers("llama", { units: "mlp" }), backend);
    using all = new Sequence(model, length);
    using windowed = new Sequence(model, length, { attention: parseAttention(`window:size=${length}`) });
    using pages = new KvPages(model, { maxBytes: 1e7, context: length });
    using paged = new Sequence(model, length, { pages });
    const logits = [];
    for (const sequence of [all, windowed, paged]) {
      backend.release(await sequence.run(text.subarray(0, 20)));
      const last = await sequence.run(text.subarray(20, 21));
      logits.push(await backend.read(last));
      backend.release(last);
    }
    for (const other of logits.slice(1)) expect(distance(other, logits[0])).toBeLessThan(1e-4);
    using copied = new Sequence(model, length);
    copied.copyFrom(all, 20);
    const last = await copied.run(text.subarray(20, 21));
    expect(distance(await backend.read(last), logits[0])).toBeLessThan(1e-4);
    backend.release(last);
  });

  test.each<[string, BlockGates["units"], string]>([
    ["gpt_neox", "sublayers", "reads the norm of attention"],
    ["bert", "block", "causal attention"],
  ])("%s with gates in front of %s is refused by name", async (family, units, message) => {
    const { config } = await MemoryCheckpoint.golden(family);
    const shapes = parseModelConfig(config, "config.json").blocks.map((shape) => ({
      ...shape,
      gates: { units, kind: "hard" as const },
    }));
    expect(() => parseModelConfig(config, "config.json", undefined, shapes)).toThrow(FormatError);
    expect(() => parseModelConfig(config, "config.json", undefined, shapes)).toThrow(message);
  });

  test("tensors that are missing, and two ways at once, are refused by name", async () => {
    const checkpoint = await gatesLayers("llama");
    checkpoint.tensors.delete("model.layers.1.layer_gate.bias");
    await expect(loaded(checkpoint, backend)).rejects.toThrow("model.layers.1.layer_gate.bias");
    const other = await gatesLayers("llama");
    other.artifact = { rarefy: 2, blocks: other.artifact!.blocks!.map((block) => ({ ...block, contextRank: 8 })) };
    await expect(loaded(other, backend)).rejects.toThrow("blocks.0.gates");
  });
});

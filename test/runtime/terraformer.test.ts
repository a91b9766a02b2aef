import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";

// Before the engine is imported: below Node 24 it looks for this class whenever it meets a 64-bit float.
vi.hoisted(() => {
  (globalThis as { Float16Array?: unknown }).Float16Array ??= class extends Float32Array {};
});

import { readModelSpec } from "../../src/arch/index.js";
import { FormatError, Random, UsageError } from "../../src/core/index.js";
import { type Backend, openBackend } from "../../src/kernels/index.js";
import { loadModel, type Model } from "../../src/model/index.js";
import { KvPages, parseAttention, parseKv, runTogether, Sequence } from "../../src/runtime/index.js";
import { fromFloat32, toFloat32 } from "../../src/tensor/index.js";
import { startEngine } from "../../src/train/engine/engine.js";
import { tracedObjective } from "../../src/train/engine/tracedObjective.js";
import { modelParameters } from "../../src/train/models/parameters.js";
import { traceModel } from "../../src/train/trace/trace.js";
import { logitsOf } from "../golden/golden.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";

/** Terraformer's layers at run time, against the functions that are trained; test/golden has them against torch. */

const [hidden, units, block, rank, heads, layers, vocabulary] = [32, 48, 6, 8, 2, 2, 29];
const tokens = Uint32Array.from({ length: 13 }, (_, i) => (7 * i * i + 3 * i) % vocabulary);

const fields = (attention: string, controlled = true) => ({
  ...{ model_type: "terraformer", vocab_size: vocabulary, hidden_size: hidden, intermediate_size: units },
  ...{ num_hidden_layers: layers, num_attention_heads: heads, max_position_embeddings: 64 },
  attention_layers: attention,
  ...(controlled && { controller_block: block, controller_rank: rank }),
});

/** Random weights, all of them numbers that bf16 has. */
function randomCheckpoint(config: Record<string, unknown>): MemoryCheckpoint {
  const random = new Random(17);
  const checkpoint = new MemoryCheckpoint(config, new Map());
  for (const { name, shape, ref } of modelParameters(readModelSpec(config, "config.json"))) {
    const length = shape.reduce((a, b) => a * b, 1);
    const [offset, deviation] =
      shape.length === 1 ? [name.includes("norm") ? 1 : 0, 0.2] : [0, 1.2 / Math.sqrt(shape[1])];
    const values = Float32Array.from(
      { length },
      () => offset + deviation * random.normal() * (/scales/.test(name) ? 5 : 1),
    );
    checkpoint.set(ref.tensor, shape, toFloat32("BF16", fromFloat32("BF16", values)), "BF16");
  }
  return checkpoint;
}

/** f32 [tokens, vocabulary], by the trainer. */
async function trained(checkpoint: MemoryCheckpoint): Promise<Float32Array[]> {
  await startEngine("wasm");
  const spec = readModelSpec(checkpoint.config, "config.json");
  const parameters = modelParameters(spec);
  using objective = tracedObjective(traceModel(spec, parameters, tokens.length));
  const weights = new Map(parameters.map(({ name, ref }) => [name, checkpoint.values(ref.tensor)]));
  const batch = { tokens: { shape: [tokens.length], values: Int32Array.from(tokens) } };
  const logits = (await objective.predict(weights, batch)) as Float32Array;
  return Array.from({ length: tokens.length }, (_, i) => logits.slice(i * vocabulary, (i + 1) * vocabulary));
}

const farthest = (made: readonly Float32Array[], expected: readonly Float32Array[]) =>
  Math.max(...expected.flatMap((row, r) => Array.from(row, (value, i) => Math.abs(value - made[r][i]))));
const close = 2e-4;

const variants = {
  "dense attention": fields("dense"),
  "multiplicative attention": fields("multiplicative"),
  "convolutional attention": fields("convolutional"),
  "convolutional attention, dense MLP": fields("convolutional", false),
};

describe.each(["reference", "wasm"] as const)("%s", (id) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await openBackend(id, { threads: 2 });
  });
  afterAll(() => backend[Symbol.dispose]());

  test.each(Object.entries(variants))(
    "%s: whole, in parts and token by token it gives the trainer's logits",
    async (_, config) => {
      const checkpoint = randomCheckpoint(config);
      const expected = await trained(checkpoint);
      for (const weights of ["f32", "bf16"] as const) {
        using model = await loadModel(checkpoint, backend, { weights });
        for (const chunk of [tokens.length, 5, 1]) {
          expect(farthest(await logitsOf(model, tokens, chunk), expected), `${weights}, ${chunk}`).toBeLessThan(close);
        }
      }
    },
  );

  test("blocks of one unit are the dense MLP, whatever the controller says", async () => {
    const single = randomCheckpoint({ ...fields("dense"), controller_block: 1 });
    using model = await loadModel(single, backend, { weights: "f32" });
    const { controller_block: _b, controller_rank: _r, ...dense } = single.config;
    const plain = new MemoryCheckpoint(
      dense,
      new Map([...single.tensors].filter(([name]) => !/controller/.test(name))),
    );
    using other = await loadModel(plain, backend, { weights: "f32" });
    expect(farthest(await logitsOf(model, tokens, 1), await logitsOf(other, tokens))).toBeLessThan(1e-5);
  });

  test("a decoded token reads the controller, the chosen rows of one map and the columns behind them that are not 0", async () => {
    const checkpoint = randomCheckpoint(fields("dense"));
    using model = await loadModel(checkpoint, backend, { weights: "bf16" });
    using cache = model.createCache(8);
    backend.release((await model.forward(tokens.subarray(0, 3), cache, 0))!);
    await backend.flush();
    backend.takeCounters();
    backend.release((await model.forward(tokens.subarray(3, 4), cache, 3))!);
    await backend.flush();
    const { weightBytesRead, inputs, inputsSkipped } = backend.takeCounters();
    const working = inputs - inputsSkipped;
    expect(inputs).toBe(layers * units);
    expect(working).toBeGreaterThan(0);
    expect(working).toBeLessThanOrEqual((layers * units) / block);
    const packed = (rows: number, cols: number) => 2 * 32 * Math.ceil(rows / 32) * 32 * Math.ceil(cols / 32);
    const attention = packed(3 * hidden, hidden) + packed(hidden, hidden);
    const controller = packed(rank, hidden) + packed(units, rank);
    const chosenRows = (units / block) * hidden * 2;
    const read = layers * (attention + controller + chosenRows) + working * 2 * hidden + packed(vocabulary, hidden);
    expect(weightBytesRead).toBe(read);
    expect(model.weightBytes.perToken).toBeLessThan(model.weightBytes.loaded);
  });

  test("what is disposed of gives all of its memory back", async () => {
    const before = backend.memoryBytes();
    const model = await loadModel(randomCheckpoint(fields("convolutional")), backend, { weights: "bf16" });
    await logitsOf(model, tokens, 1);
    expect(backend.memoryBytes()).toBeGreaterThan(before);
    model[Symbol.dispose]();
    expect(backend.memoryBytes()).toBe(before);
  });
});

describe("texts of a model of convolutions", () => {
  let backend: Backend;
  let model: Model;
  beforeAll(async () => {
    backend = await openBackend("wasm", { threads: 1 });
    model = await loadModel(randomCheckpoint(fields("convolutional")), backend, { weights: "f32" });
  });
  afterAll(() => {
    model[Symbol.dispose]();
    backend[Symbol.dispose]();
  });

  const last = async (sequence: Sequence, ids: Uint32Array): Promise<Float32Array> => {
    const logits = await sequence.run(ids);
    const values = await backend.read(logits);
    backend.release(logits);
    return values.slice(0, vocabulary);
  };

  test("go back to where they were, and on with other tokens", async () => {
    using gone = new Sequence(model, 32);
    await last(gone, tokens);
    gone.rewind(6);
    using other = new Sequence(model, 32);
    const next = Uint32Array.of(1, 2, 3);
    await last(other, tokens.subarray(0, 6));
    expect(farthest([await last(gone, next)], [await last(other, next)])).toBeLessThan(close);
    expect(gone.byteLength).toBeGreaterThan(2 * layers * hidden * 32 * 4);
  });

  test("run together as they run alone", async () => {
    using first = new Sequence(model, 32);
    using second = new Sequence(model, 32);
    using alone = new Sequence(model, 32);
    await last(first, tokens.subarray(0, 6));
    const turns = [
      { sequence: first, tokens: tokens.subarray(6, 7) },
      { sequence: second, tokens: tokens.subarray(0, 4) },
    ];
    const { logits, firstRows } = await runTogether(turns);
    const values = await backend.read(logits!);
    const rowOf = (turn: number) => values.slice(firstRows[turn] * logits!.cols).subarray(0, vocabulary);
    expect(farthest([rowOf(1)], [await last(alone, tokens.subarray(0, 4))])).toBeLessThan(close);
    expect(farthest([rowOf(0)], [await last(alone, tokens.subarray(4, 7))])).toBeLessThan(close);
    backend.release(logits!);
  });

  test("are thrown away from as texts of other models are", async () => {
    // Keys and values of the first tokens go; what convolutions saw of the last ones stays.
    using short = new Sequence(model, 32, { kv: parseKv("recent:budget=6") });
    using windowed = new Sequence(model, 32, { attention: parseAttention("window:size=7") });
    for (const token of tokens) {
      const one = Uint32Array.of(token);
      expect(farthest([await last(short, one)], [await last(windowed, one)])).toBeLessThan(close);
    }
  });

  test("keep their positions and their caches", async () => {
    const slots = { kv: parseKv("sinks:budget=8,sinks=2,positions=slots") };
    using renumbered = new Sequence(model, 32, slots);
    await expect(last(renumbered, tokens)).rejects.toThrow(/positions=slots/);
    using pages = new KvPages(model, { maxBytes: 1e6 });
    expect(() => new Sequence(model, 32, { pages })).toThrow(/remembers more than keys/);
    using cache = model.createCache(16);
    await expect(model.forward(tokens.subarray(0, 1), cache, 4)).rejects.toThrow(UsageError);
  });
});

test.each([
  [{ controller_rank: undefined }, /controller_rank/],
  [{ controller_block: 5 }, /controller_block/],
  [{ controller_rank: 6 }, /controller_rank/],
  [{ hidden_size: 36 }, /hidden_size/],
  [{ attention_layers: "round" }, /attention_layers/],
])("a config with %j is refused by its field", (wrong, field) => {
  const read = () => readModelSpec({ ...fields("dense"), ...wrong }, "config.json");
  expect(read).toThrow(FormatError);
  expect(read).toThrow(field);
});

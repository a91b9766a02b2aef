import { expect, test } from "vitest";
import { UsageError } from "../../src/core/index.js";
import { type Backend, openBackend } from "../../src/kernels/index.js";
import { type ActivationThresholds, loadAdapter, loadModel, type Model } from "../../src/model/index.js";
import { parseAttention, parseKv, runTogether, Sequence, type SequenceOptions } from "../../src/runtime/index.js";
import { relativeDifference } from "../compress/support.js";
import { load, path } from "../golden/golden.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";
import { mergeAdapter, randomAdapter, randomMixture } from "../support/adapter.js";

/** Families that differ in what a sequence has of its own: positions learned and rotated, windows, latents, sinks, experts. */
const families = ["llama", "gpt2", "gemma2", "deepseek_v3", "gpt_oss", "mixtral", "gpt_neox"];

const texts = [
  [3, 14, 15, 92, 65, 35, 89],
  [27, 18, 28],
  [16, 18, 3, 39, 88, 74, 98, 94, 84, 55],
  [57, 72, 15, 66, 49],
].map((ids) => Uint32Array.from(ids));

/** The same for all texts, or those of each. */
type Options = SequenceOptions | ((text: number) => SequenceOptions);
const optionsOf = (options: Options, text: number) => (typeof options === "function" ? options(text) : options);

async function rowOf(backend: Backend, model: Model, logits: Awaited<ReturnType<Sequence["run"]>>, row: number) {
  return (await backend.read(logits.rowRange(row, 1))).slice(0, model.config.vocabSize);
}

/** Logits after the last token of each text, alone; the last token by itself, as when texts are generated. */
async function alone(backend: Backend, model: Model, options: Options): Promise<Float32Array[]> {
  const results: Float32Array[] = [];
  for (const [t, text] of texts.entries()) {
    using sequence = new Sequence(model, 16, optionsOf(options, t));
    backend.release(await sequence.run(text.subarray(0, -1)));
    const logits = await sequence.run(text.subarray(-1));
    results.push(await rowOf(backend, model, logits, 0));
    backend.release(logits);
  }
  return results;
}

/** The same, with every pass over what each of the sequences is to run next: prompts in pieces, beside single tokens. */
async function together(backend: Backend, model: Model, options: Options): Promise<Float32Array[]> {
  const sequences = texts.map((_, t) => new Sequence(model, 16, optionsOf(options, t)));
  const results: Float32Array[] = [];
  for (let round = 0; results.filter(Boolean).length < texts.length; round++) {
    const turns = texts.flatMap((text, t) => {
      const { length } = sequences[t];
      const left = text.length - 1 - length;
      if (length === text.length) return [];
      const count = left === 0 ? 1 : Math.min(left, t + 1 + round, sequences[t].passRows(left));
      const tokens = text.subarray(length, length + count);
      return [{ t, sequence: sequences[t], tokens, left: Math.max(0, left - count), dense: left > 0 }];
    });
    const wanted = turns.map((turn) => ({ ...turn, logits: turn.dense ? ("none" as const) : ("last" as const) }));
    const { logits, firstRows } = await runTogether(wanted);
    for (const [i, { t, dense }] of turns.entries()) {
      if (!dense) results[t] = await rowOf(backend, model, logits!, firstRows[i]);
    }
    if (logits !== undefined) backend.release(logits);
  }
  for (const sequence of sequences) sequence[Symbol.dispose]();
  return results;
}

function expectClose(actual: readonly Float32Array[], expected: readonly Float32Array[], tolerance: number): void {
  for (const [t, row] of expected.entries()) {
    expect(relativeDifference(actual[t], row), `text ${t}`).toBeLessThan(tolerance);
  }
}

test.each(families)("%s: sequences in one pass get what each gets alone", async (family) => {
  using backend = await openBackend("reference");
  using model = await load(path(`arch/${family}`), backend, "f32");
  expectClose(await together(backend, model, {}), await alone(backend, model, {}), 1e-5);
});

test.each(["llama", "gpt2"])("%s: each sequence of a pass has the adapter that it names", async (family) => {
  const checkpoint = await MemoryCheckpoint.golden(family);
  const targets = [["q_proj", "v_proj", "down_proj"], ["o_proj"]];
  const adapters = targets.map((modules, a) => randomAdapter(checkpoint.config, modules, 3 + a));
  for (const kind of ["reference", "wasm"] as const) {
    using backend = await openBackend(kind, kind === "wasm" ? { threads: 1 } : {});
    using model = await loadModel(checkpoint, backend, { weights: "f32" });
    using first = await loadAdapter(model, adapters[0]);
    using second = await loadAdapter(model, adapters[1]);
    const chosen = [[first], undefined, [second], [first]];
    const mixed = await together(backend, model, (t) => ({ adapters: chosen[t] }));
    // What the merged model gives; its rows are those of no other adapter.
    const plain = await alone(backend, model, {});
    for (const [a, adapter] of adapters.entries()) {
      using merged = await loadModel(await mergeAdapter(checkpoint, adapter), backend, { weights: "f32" });
      const expected = await alone(backend, merged, {});
      for (const t of a === 0 ? [0, 3] : [2]) {
        expect(relativeDifference(mixed[t], expected[t]), `${kind}, text ${t}`).toBeLessThan(1e-4);
        expect(relativeDifference(mixed[t], plain[t])).toBeGreaterThan(1e-2);
      }
    }
    expect(relativeDifference(mixed[1], plain[1])).toBeLessThan(1e-5);
    using other = await loadModel(checkpoint, backend, { weights: "f32" });
    using stranger = new Sequence(other, 4, { adapters: [first] });
    await expect(stranger.run(Uint32Array.of(1))).rejects.toThrow("another model");
    using from = new Sequence(model, 8, { adapters: [first] });
    using to = new Sequence(model, 8);
    backend.release(await from.run(texts[0].subarray(0, 3)));
    expect(() => to.copyFrom(from, 2)).toThrow(UsageError);
  }
});

test("mixtures of adapters in one pass with a pair and with none: as alone, whoever stands beside", async () => {
  const checkpoint = await MemoryCheckpoint.golden("llama");
  const all = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj"];
  const wanted = [
    await randomMixture(checkpoint.config, "molora", all, { experts: 3, rank: 3 }),
    await randomMixture(checkpoint.config, "mov", ["k_proj", "v_proj", "down_proj"], { experts: 5, topK: 2 }),
    randomAdapter(checkpoint.config, ["k_proj", "down_proj"], 3),
  ];
  for (const kind of ["reference", "wasm"] as const) {
    using backend = await openBackend(kind, kind === "wasm" ? { threads: 1 } : {});
    using model = await loadModel(checkpoint, backend, { weights: "f32" });
    const [molora, mov, lora] = await Promise.all(wanted.map((adapter) => loadAdapter(model, adapter)));
    const lists = [[molora, mov], undefined, [mov, lora], [lora, mov]];
    const options = (t: number) => ({ adapters: lists[t] });
    const expected = await alone(backend, model, options);
    expectClose(await together(backend, model, options), expected, 1e-5);
    const plain = await alone(backend, model, {});
    for (const t of [0, 2, 3]) expect(relativeDifference(expected[t], plain[t])).toBeGreaterThan(1e-2);
    for (const adapter of [molora, mov, lora]) adapter[Symbol.dispose]();
  }
});

test("WebAssembly, with a window and a policy that throws away: as alone", async () => {
  using backend = await openBackend("wasm", { threads: 1 });
  using model = await load(path("arch/llama"), backend, "f32");
  for (const options of [{ attention: parseAttention("window:size=3") }, { kv: parseKv("sinks:budget=6,sinks=1") }]) {
    expectClose(await together(backend, model, options), await alone(backend, model, options), 1e-5);
  }
});

test("thresholds apply to the tokens that are not dense, and to no others", async () => {
  using backend = await openBackend("reference");
  using model = await load(path("arch/llama"), backend, "f32");
  const thresholds: ActivationThresholds = { maps: [0, 1].map(() => ({ q_proj: 0.3, up_proj: 0.3, down_proj: 0.05 })) };
  const sparse: Float32Array[] = [];
  for (const text of texts) {
    using sequence = new Sequence(model, 16, { thresholds });
    backend.release(await sequence.run(text.subarray(0, -1), { sparseFrom: text.length - 1 }));
    const logits = await sequence.run(text.subarray(-1));
    sparse.push(await rowOf(backend, model, logits, 0));
    backend.release(logits);
  }
  expectClose(await together(backend, model, { thresholds }), sparse, 1e-5);
  const dense = await alone(backend, model, {});
  expect(() => expectClose(dense, sparse, 1e-3)).toThrow();
});

test("a sequence that copied its beginning goes on as if it had run it", async () => {
  using backend = await openBackend("wasm", { threads: 1 });
  using model = await load(path("arch/llama"), backend, "f32");
  using first = new Sequence(model, 16);
  using second = new Sequence(model, 12);
  backend.release(await first.run(texts[0]));
  second.copyFrom(first, 5);
  expect(second.tokens).toEqual([...texts[0].subarray(0, 5)]);
  const [own, copied] = await Promise.all(
    [first, second].map(async (sequence) => {
      const logits = await sequence.run(sequence.reuse(texts[0]));
      return rowOf(backend, model, logits, 0);
    }),
  );
  expectClose([copied], [own], 1e-5);
  expect(() => second.copyFrom(first, 5)).toThrow(UsageError);
});

test("what cannot be one pass is refused", async () => {
  using backend = await openBackend("reference");
  using model = await load(path("arch/llama"), backend, "f32");
  using first = new Sequence(model, 4);
  using sparse = new Sequence(model, 4, { thresholds: "dense" });
  const turn = (sequence: Sequence) => ({ sequence, tokens: Uint32Array.of(1) });
  await expect(runTogether([turn(first), turn(first)])).rejects.toThrow(UsageError);
  await expect(runTogether([turn(first), turn(sparse)])).rejects.toThrow("same thresholds");
  await expect(runTogether([{ sequence: first, tokens: new Uint32Array(5) }])).rejects.toThrow(UsageError);
  await expect(runTogether([])).rejects.toThrow(UsageError);
  expect(first.length).toBe(0);
});

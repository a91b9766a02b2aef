import { expect, test } from "vitest";
import { UsageError } from "../../src/core/index.js";
import { type Backend, openBackend } from "../../src/kernels/index.js";
import type { ActivationThresholds, Model } from "../../src/model/index.js";
import { parseAttention, parseKv, runTogether, Sequence, type SequenceOptions } from "../../src/runtime/index.js";
import { relativeDifference } from "../compress/support.js";
import { load, path } from "../golden/golden.js";

/** Families that differ in what a sequence has of its own: positions learned and rotated, windows, latents, sinks, experts. */
const families = ["llama", "gpt2", "gemma2", "deepseek_v3", "gpt_oss", "mixtral", "gpt_neox"];

const texts = [
  [3, 14, 15, 92, 65, 35, 89],
  [27, 18, 28],
  [16, 18, 3, 39, 88, 74, 98, 94, 84, 55],
  [57, 72, 15, 66, 49],
].map((ids) => Uint32Array.from(ids));

async function rowOf(backend: Backend, model: Model, logits: Awaited<ReturnType<Sequence["run"]>>, row: number) {
  return (await backend.read(logits.rowRange(row, 1))).slice(0, model.config.vocabSize);
}

/** Logits after the last token of each text, alone; the last token by itself, as when texts are generated. */
async function alone(backend: Backend, model: Model, options: SequenceOptions): Promise<Float32Array[]> {
  const results: Float32Array[] = [];
  for (const text of texts) {
    using sequence = new Sequence(model, 16, options);
    backend.release(await sequence.run(text.subarray(0, -1)));
    const logits = await sequence.run(text.subarray(-1));
    results.push(await rowOf(backend, model, logits, 0));
    backend.release(logits);
  }
  return results;
}

/** The same, with every pass over what each of the sequences is to run next: prompts in pieces, beside single tokens. */
async function together(backend: Backend, model: Model, options: SequenceOptions): Promise<Float32Array[]> {
  const sequences = texts.map(() => new Sequence(model, 16, options));
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

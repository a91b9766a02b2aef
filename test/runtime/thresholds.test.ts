import { expect, test } from "vitest";
import { openBackend } from "../../src/kernels/index.js";
import type { ActivationThresholds } from "../../src/model/index.js";
import { Sequence } from "../../src/runtime/index.js";
import { load, path } from "../golden/golden.js";

const roles = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
const uniform = (value: number): ActivationThresholds => ({
  maps: Array.from({ length: 2 }, () => Object.fromEntries(roles.map((role) => [role, value]))),
});
const prompt = Uint32Array.of(3, 14, 15, 92, 65);

test("two sequences of one model with different thresholds, in turns, give what each gives alone", async () => {
  using backend = await openBackend("reference");
  using model = await load(path("arch/llama"), backend, "f32", uniform(0.1));
  const settings = ["dense", uniform(0.02), uniform(0.2), undefined] as const;
  const step = async (sequence: Sequence, tokens: Uint32Array) => {
    const logits = await sequence.run(tokens);
    const values = await backend.read(logits);
    backend.release(logits);
    return values;
  };
  // Alone, each by what it was loaded with.
  const alone: Float32Array[][] = [];
  for (const setting of settings) {
    using own = await load(
      path("arch/llama"),
      backend,
      "f32",
      setting === "dense" ? undefined : (setting ?? uniform(0.1)),
    );
    using sequence = new Sequence(own, 8);
    alone.push([await step(sequence, prompt), await step(sequence, Uint32Array.of(35))]);
  }
  // Together: the model's own are those of the last.
  const sequences = settings.map((thresholds) => new Sequence(model, 8, { thresholds }));
  const prefills = await Promise.all(sequences.map((sequence) => step(sequence, prompt)));
  const decodes = await Promise.all(sequences.map((sequence) => step(sequence, Uint32Array.of(35))));
  for (const [s, [prefill, decode]] of alone.entries()) {
    expect(prefills[s]).toEqual(prefill);
    expect(decodes[s]).toEqual(decode);
  }
  for (const other of decodes.slice(1)) expect(other).not.toEqual(decodes[0]);
  for (const sequence of sequences) sequence[Symbol.dispose]();
});

test("a pass with thresholds of its own reads fewer bytes than the dense one behind it", async () => {
  using backend = await openBackend("wasm", { threads: 1 });
  using model = await load(path("arch/llama"), backend, "f32");
  using cache = model.createCache(8);
  const bytes = async (thresholds: ActivationThresholds | "dense") => {
    backend.takeCounters();
    backend.release((await model.forward(Uint32Array.of(7), cache, 0, { thresholds }))!);
    await backend.flush();
    return backend.takeCounters().weightBytesRead;
  };
  const [sparse, dense] = [await bytes(uniform(0.3)), await bytes("dense")];
  expect(dense).toBe(model.weightBytes.perToken);
  expect(sparse).toBeLessThan(dense);
});

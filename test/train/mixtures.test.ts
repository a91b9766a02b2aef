import { beforeAll, describe, expect, test } from "vitest";
import { readModelSpec } from "../../src/arch/index.js";
import { Random } from "../../src/core/index.js";
import { type Adapter, memoryFiles, memorySinks, readAdapter, writeAdapter } from "../../src/io/index.js";
import { openBackend } from "../../src/kernels/index.js";
import { loadAdapter, loadModel, withAdapter } from "../../src/model/index.js";
import { startEngine } from "../../src/train/engine/engine.js";
import {
  adaptedObjective,
  adapterMethods,
  type Batch,
  decoderObjective,
  modelParameters,
  modulesOf,
  type RoutedBase,
  readWeights,
  routedAdapterMethods,
  routedObjective,
  type Values,
} from "../../src/train/index.js";
import { logits, randomTokens, relativeDifference } from "../compress/support.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";
import { mergeAdapter, randomMixture, randomValues } from "../support/adapter.js";

beforeAll(() => startEngine("wasm"));

const window = 12;
const tokens = randomTokens(4, 2 * window);

const batchOf = (rows: Uint32Array): Batch => {
  const shape = [rows.length];
  return {
    tokens: { shape, values: Int32Array.from(rows) },
    label: { shape, values: Int32Array.from(rows).reverse() },
  };
};

/** A small checkpoint of a family, in memory, and what is trained beside it. */
async function beside(family: string) {
  const checkpoint = await MemoryCheckpoint.golden(family);
  const spec = readModelSpec(checkpoint.config, "config.json");
  const parameters = modelParameters(spec);
  const frozen = await readWeights(checkpoint, parameters);
  const base: RoutedBase = { spec, parameters, frozen, window, device: "wasm" };
  return { checkpoint, base };
}

async function mixture(base: RoutedBase, kind: string, targets: readonly string[], given: object = {}) {
  const { method } = await routedAdapterMethods[kind]();
  const options = method.options.parse(given);
  const modules = modulesOf(base.spec, targets);
  const objective = await routedObjective(base, modules, method, options, new Random(3));
  const described = Array.from(objective.first, ([name, first]) => ({ name, first }));
  const random = randomValues(described, new Random(4));
  return {
    objective,
    random,
    adapterOf: (values: Values) => method.adapter(modules, values, options),
    method,
    modules,
  };
}

const targetsOf = {
  molora: ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"],
  mov: ["k_proj", "v_proj", "down_proj"],
};
const kinds = ["molora", "mov"] as const;

/** Read back from the files that it is written to. */
async function throughFiles(adapter: Adapter): Promise<Adapter> {
  const files = new Map<string, Uint8Array>();
  await writeAdapter(memorySinks(files), adapter);
  return readAdapter(memoryFiles("adapter", files));
}

/** Logits of the runtime, of each window by itself. */
async function runtimeLogits(backendId: "reference" | "wasm", checkpoint: MemoryCheckpoint, adapter: Adapter) {
  using backend = await openBackend(backendId);
  using model = await loadModel(checkpoint, backend, { weights: "f32" });
  const before = backend.memoryBytes();
  const all: number[] = [];
  {
    using adapted = await withAdapter(model, adapter);
    for (let at = 0; at < tokens.length; at += window) {
      using cache = adapted.createCache(window);
      // A prompt, then one token.
      for (const [start, end] of [
        [0, window - 1],
        [window - 1, window],
      ]) {
        const out = (await adapted.forward(tokens.subarray(at + start, at + end), cache, start, { logits: "all" }))!;
        const values = await backend.read(out);
        for (let r = 0; r < out.rows; r++)
          all.push(...values.subarray(r * out.cols, r * out.cols + model.config.vocabSize));
        backend.release(out);
      }
    }
  }
  // All but working memory that grew.
  expect(backend.memoryBytes() - before).toBeLessThan(2 ** 20);
  return all;
}

/** −log softmax of what follows, the mean over all tokens. */
function meanLossOf(values: readonly number[]): number {
  const { values: labels } = batchOf(tokens).label;
  const cols = values.length / labels.length;
  const losses = Array.from(labels, (label, t) => {
    const row = values.slice(t * cols, (t + 1) * cols);
    const most = Math.max(...row);
    return most + Math.log(row.reduce((sum, z) => sum + Math.exp(z - most), 0)) - row[label];
  });
  return losses.reduce((a, b) => a + b, 0) / losses.length;
}

describe.each(kinds)("%s", (kind) => {
  test("at first the model is as it was", async () => {
    const { checkpoint, base } = await beside("llama");
    const { objective } = await mixture(base, kind, targetsOf[kind], { experts: 3 });
    using _ = objective;
    const rows = tokens.subarray(0, window);
    const found = await objective.predict(objective.first, batchOf(rows));
    expect(relativeDifference(found, await logits(checkpoint, rows))).toBeLessThan(1e-5);
  });

  test.each(["llama", "gpt2", "phi3", "gpt_neox"])(
    "%s: what was trained, written and read back gives the logits of training beside the weights",
    async (family) => {
      const { checkpoint, base } = await beside(family);
      const variants = family === "llama" ? [{}, { topK: 2 }] : [{}];
      for (const variant of variants) {
        const { objective, random, adapterOf } = await mixture(base, kind, targetsOf[kind], { experts: 5, ...variant });
        using _ = objective;
        const expected = await objective.predict(random, batchOf(tokens));
        expect(relativeDifference(expected, await objective.predict(objective.first, batchOf(tokens)))).toBeGreaterThan(
          1e-2,
        );
        const read = await throughFiles(adapterOf(random));
        for (const backend of ["reference", "wasm"] as const) {
          const found = await runtimeLogits(backend, checkpoint, read);
          expect(relativeDifference(found, expected)).toBeLessThan(1e-4);
          expect(meanLossOf(found)).toBeCloseTo(await objective.loss(random, batchOf(tokens)), 4);
        }
      }
    },
  );

  test("what is read back is what was trained", async () => {
    const { base } = await beside("phi3");
    const { objective, random, adapterOf, method, modules } = await mixture(base, kind, targetsOf[kind], {
      experts: 3,
      topK: 2,
    });
    using _ = objective;
    const read = await throughFiles(adapterOf(random));
    const back = new Map(modules.flatMap((module) => [...method.values(module, read)!]));
    expect([...back.keys()].sort()).toEqual([...random.keys()].sort());
    for (const [name, values] of random) expect(back.get(name), name).toEqual(values);
  });

  test("one expert is the adapter that it is a mixture of", async () => {
    const { base } = await beside("llama");
    const plain = kind === "molora" ? "lora" : "ia3";
    const own = kind === "molora" ? { rank: 3, alpha: 5 } : {};
    const one = await mixture(base, kind, targetsOf[kind], { experts: 1, ...own });
    using objective = one.objective;
    const { method } = await adapterMethods[plain]();
    const options = method.options.parse(own);
    using whole = await decoderObjective(base.spec, base.parameters, window);
    const single = adaptedObjective(whole, base.frozen, one.modules, method, options, new Random(1));
    // The names differ, and nothing else.
    const values = new Map(
      Array.from(single.first.keys(), (name) => {
        const other = name.replace(/lora_(.)\.weight$/, (_, half) => (half === "A" ? "molora_A" : "molora_B.0"));
        return [name, one.random.get(other.replace(/ia3_l$/, "mov_l.0"))!];
      }),
    );
    const expected = await single.lossAndGradients(values, batchOf(tokens));
    const found = await objective.lossAndGradients(one.random, batchOf(tokens));
    expect(found.loss).toBeCloseTo(expected.loss, 5);
    const named = new Map([...values].map(([name, array]) => [array, name]));
    for (const [name, array] of one.random) {
      const gradient = found.gradients.get(name)!;
      const other = named.get(array);
      // The softmax of one expert is 1 whatever its router says.
      if (other === undefined) expect(Math.max(...gradient.map(Math.abs)), name).toBe(0);
      else expect(relativeDifference(gradient, expected.gradients.get(other)!), name).toBeLessThan(1e-3);
    }
  });

  test("routers without weights give the mean of all experts, which can be merged", async () => {
    const { checkpoint, base } = await beside("llama");
    const { random, objective, adapterOf } = await mixture(base, kind, targetsOf[kind], { experts: 3 });
    objective[Symbol.dispose]();
    for (const [name, values] of random) if (name.endsWith("router")) values.fill(0);
    const adapter = adapterOf(random);
    const expected = await logits(await mergeAdapter(checkpoint, meanOf(adapter)), tokens.subarray(0, window));
    const found = await runtimeLogits("wasm", checkpoint, adapter);
    expect(relativeDifference(found.slice(0, expected.length), expected)).toBeLessThan(1e-4);
  });

  test("experts out of balance cost, and the loss that is reported does not count it", async () => {
    const { base } = await beside("llama");
    const without = await mixture(base, kind, targetsOf[kind], { experts: 3 });
    const balanced = await mixture(base, kind, targetsOf[kind], { experts: 3, balance: 0.5 });
    using first = without.objective;
    using second = balanced.objective;
    const [a, b] = [
      await first.lossAndGradients(without.random, batchOf(tokens)),
      await second.lossAndGradients(without.random, batchOf(tokens)),
    ];
    // At least 1 for every module, which it is at perfect balance.
    expect(b.loss - a.loss).toBeGreaterThan(0.5 * without.modules.length - 1e-3);
    expect(await second.loss(without.random, batchOf(tokens))).toBeCloseTo(a.loss, 5);
  });
});

/** One adapter with the mean of what all experts do. */
function meanOf(adapter: Adapter): Adapter {
  if (adapter.kind === "molora") {
    return {
      kind: "lora",
      modules: new Map(
        Array.from(adapter.modules, ([name, { a, b, experts, rank, rows, cols, scale }]) => {
          const wide = new Float32Array(rows * experts * rank);
          for (let i = 0; i < wide.length; i++) {
            const [row, e, k] = [Math.floor(i / (experts * rank)), Math.floor(i / rank) % experts, i % rank];
            wide[i] = b[(e * rows + row) * rank + k];
          }
          return [name, { a, b: wide, rank: experts * rank, rows, cols, scale: scale / experts }];
        }),
      ),
    };
  }
  if (adapter.kind !== "mov") throw new Error("a mixture is expected");
  return {
    kind: "ia3",
    modules: new Map(
      Array.from(adapter.modules, ([name, { factors, experts, of }]) => {
        const length = factors.length / experts;
        const mean = Float32Array.from({ length }, (_, c) => {
          let sum = 0;
          for (let e = 0; e < experts; e++) sum += factors[e * length + c];
          return sum / experts;
        });
        return [name, { factors: mean, of }];
      }),
    ),
  };
}

test.each([
  // n pairs of rank r for m × d are n·r·(m + d), and the router is n·d.
  ["molora", { experts: 3, rank: 2 }, 3 * 2 * (16 + 12) + 3 * 12 + 3 * 2 * (12 + 20) + 3 * 20],
  ["molora", { experts: 1, rank: 5 }, 5 * (16 + 12) + 12 + 5 * (12 + 20) + 20],
  // n vectors of what is multiplied, and a router for one head of it, or for all inputs.
  ["mov", { experts: 3 }, 3 * 16 + 3 * 4 + 3 * 20 + 3 * 20],
  ["mov", { experts: 7, inputsOf: ["k_proj", "down_proj"] }, 7 * (12 + 12) + 7 * (20 + 20)],
])("%s %j trains as many numbers as its formula says", async (kind, given, count) => {
  const { method } = await routedAdapterMethods[kind]();
  const options = method.options.parse(given);
  const all = (length: number) => Array.from({ length }, (_, i) => i);
  const modules = [
    { name: "kv", rows: 16, cols: 12, roles: ["k_proj"], pieces: [{ parameter: "k", rows: all(16), headWidth: 4 }] },
    { name: "down", rows: 12, cols: 20, roles: ["down_proj"], pieces: [{ parameter: "down", rows: all(12) }] },
  ];
  const described = modules.flatMap((module) => method.parameters(module, options, new Random(1)));
  expect(described.reduce((sum, { first }) => sum + first.length, 0)).toBe(count);
  for (const { shape, first } of described) expect(shape.reduce((a, b) => a * b, 1)).toBe(first.length);
});

describe("what cannot be is refused with the reason", () => {
  test("outputs that are added to the residual stream at once, and inputs that several matrices share", async () => {
    const checkpoint = await MemoryCheckpoint.golden("llama");
    using backend = await openBackend("reference");
    using model = await loadModel(checkpoint, backend, { weights: "f32" });
    const refused = async (targets: string[], given: object, reason: RegExp) => {
      const adapter = await randomMixture(checkpoint.config, "mov", targets, { experts: 2, ...given });
      await expect(loadAdapter(model, adapter)).rejects.toThrow(reason);
      const { base } = await beside("llama");
      await expect(mixture(base, "mov", targets, given)).rejects.toThrow(reason);
    };
    await refused(["o_proj"], {}, /o_proj.*added/);
    await refused(["k_proj"], { inputsOf: ["k_proj"] }, /k_proj.* shares its input/);
  });

  test("experts of a mixture of experts", async () => {
    const { base } = await beside("mixtral");
    await expect(mixture(base, "molora", ["down_proj"])).rejects.toThrow(/of an expert/);
  });

  test("more experts that count than there are", async () => {
    const { base } = await beside("llama");
    await expect(mixture(base, "mov", ["k_proj"], { experts: 2, topK: 3 })).rejects.toThrow("topK 3 of 2 experts");
  });

  test.each<[string, (config: Record<string, unknown>) => void, RegExp]>([
    ["another number of experts", (config) => Object.assign(config, { num_experts: 4 }), /shape \[3, .*\[4, /],
    ["more that count", (config) => Object.assign(config, { top_k: 4 }), /top_k 4 of 3 experts/],
    ["no experts", (config) => Object.assign(config, { num_experts: 0 }), /num_experts/],
    ["another kind", (config) => Object.assign(config, { peft_type: "LORA", r: 4, lora_alpha: 4 }), /another kind/],
  ])("files of %s", async (_, change, reason) => {
    const checkpoint = await MemoryCheckpoint.golden("llama");
    for (const kind of kinds) {
      const files = new Map<string, Uint8Array>();
      await writeAdapter(
        memorySinks(files),
        await randomMixture(checkpoint.config, kind, ["k_proj", "down_proj"], { experts: 3 }),
      );
      const config = JSON.parse(new TextDecoder().decode(files.get("adapter_config.json")));
      change(config);
      files.set("adapter_config.json", new TextEncoder().encode(JSON.stringify(config)));
      await expect(readAdapter(memoryFiles("adapter", files))).rejects.toThrow(reason);
    }
  });
});

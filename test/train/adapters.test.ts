import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, test } from "vitest";
import { linearsOf, readModelSpec } from "../../src/arch/index.js";
import { Random } from "../../src/core/index.js";
import {
  addPair,
  memoryFiles,
  memorySinks,
  openCheckpoint,
  readAdapter,
  rescale,
  writeAdapter,
} from "../../src/io/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { openBackend } from "../../src/kernels/index.js";
import { adaptationsOf, loadModel, withAdapter } from "../../src/model/index.js";
import { startEngine } from "../../src/train/engine/engine.js";
import {
  adaptedObjective,
  adapterMethods,
  constant,
  decoderObjective,
  modelParameters,
  modulesOf,
  type Objective,
  readState,
  readWeights,
  Training,
  type Values,
  writeState,
} from "../../src/train/index.js";
import { method as dense } from "../../src/train/methods/dense.js";
import { cloneValues } from "../../src/train/values.js";
import { logits, randomTokens, relativeDifference } from "../compress/support.js";
import { path } from "../golden/golden.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";
import { mergeAdapter, randomAdapter } from "../support/adapter.js";

beforeAll(() => startEngine("wasm"));

const specOf = (config: unknown) => readModelSpec(config, "config.json");

/** ½·Σ (W − target)² of every weight: its gradient is W − target. */
function quadratic(targets: Values): Objective {
  const loss = (weights: Values) => {
    let sum = 0;
    for (const [name, target] of targets) {
      const w = weights.get(name)!;
      for (let i = 0; i < w.length; i++) sum += (w[i] - target[i]) ** 2 / 2;
    }
    return sum;
  };
  return {
    parameters: Array.from(targets, ([name]) => ({ name, shape: [], layer: "", role: "dense" })),
    loss: async (weights) => loss(weights),
    lossAndGradients: async (weights) => ({
      loss: loss(weights),
      gradients: new Map(Array.from(targets, ([name, t]) => [name, weights.get(name)!.map((w, i) => w - t[i])])),
      measured: new Map(),
    }),
    predict: async () => new Float32Array(),
    [Symbol.dispose]() {},
  };
}

/** Two maps in the rows of one tensor, as q and v are, and one of its own. */
const modules = [
  {
    name: "block.qkv",
    rows: 6,
    cols: 4,
    roles: ["q_proj", "v_proj"],
    pieces: [
      { parameter: "q", rows: [0, 1, 4] },
      { parameter: "v", rows: [2, 3, 5] },
    ],
  },
  { name: "block.down", rows: 4, cols: 8, roles: ["down_proj"], pieces: [{ parameter: "down", rows: [0, 1, 2, 3] }] },
];

describe.each(["lora", "ia3"])("%s", (kind) => {
  test.each([false, true])("its gradient is the central difference of the loss, zeros kept %s", async (keepZeros) => {
    const { method } = await adapterMethods[kind]();
    const random = new Random(5);
    const draw = (length: number) => Float64Array.from({ length }, () => random.normal());
    const weights = new Map(["q", "v", "down"].map((name) => [name, draw(name === "down" ? 32 : 12)]));
    for (const values of weights.values()) for (let i = 0; i < values.length; i += 3) values[i] = 0;
    const targets = new Map(Array.from(weights, ([name, { length }]) => [name, draw(length)]));
    const options = method.options.parse(kind === "lora" ? { rank: 2, alpha: 3 } : {});
    const objective = adaptedObjective(quadratic(targets), weights, modules, method, options, random, keepZeros);
    // f64 throughout; B is not left at its zeros.
    const values = new Map(Array.from(objective.first, ([name, { length }]) => [name, draw(length)]));
    const { gradients } = await objective.lossAndGradients(values, {});
    for (const [name, own] of values) {
      for (const at of [0, own.length - 1]) {
        const lossAt = async (shift: number) => {
          const moved = cloneValues(values);
          moved.get(name)![at] += shift;
          return objective.loss(moved, {});
        };
        const h = 1e-2;
        const difference = ((await lossAt(h)) - (await lossAt(-h))) / (2 * h);
        expect(gradients.get(name)![at], `${name} ${at}`).toBeCloseTo(difference, 3);
      }
    }
    if (kind === "lora") {
      const changed = objective.effective(values).get("down")!;
      expect(changed[0] === 0).toBe(keepZeros);
    }
  });

  test("at first the model is as it was, and what PEFT's files hold is what was trained", async () => {
    const { method } = await adapterMethods[kind]();
    const random = new Random(6);
    const draw = (length: number) => Float32Array.from({ length }, () => random.normal());
    const weights = new Map<string, Float32Array>([
      ["q", draw(12)],
      ["v", draw(12)],
      ["down", draw(32)],
    ]);
    const options = method.options.parse(kind === "lora" ? { rank: 2 } : {});
    const objective = adaptedObjective(quadratic(weights), weights, modules, method, options, random);
    for (const [name, values] of objective.effective(objective.first))
      expect([...values]).toEqual([...weights.get(name)!]);

    const trained = new Map(Array.from(objective.first, ([name, v]) => [name, v.map(() => random.normal())]));
    const files = new Map<string, Uint8Array>();
    await writeAdapter(memorySinks(files), method.adapter(modules, trained, options));
    const read = await readAdapter(memoryFiles("adapter", files));
    for (const module of modules) {
      for (const [name, values] of method.values(module, read)!) expect(values).toEqual(trained.get(name));
    }
    // What training multiplies with is what merging makes of the files.
    const effective = objective.effective(trained);
    for (const { name, pieces, cols } of modules) {
      for (const { parameter, rows } of pieces) {
        const whole = new Float32Array(weights.get(parameter)!.length);
        const adapted = read.modules.get(name)!;
        const b =
          "a" in adapted &&
          Float32Array.from(
            rows.flatMap((row) => [...adapted.b.subarray(row * adapted.rank, (row + 1) * adapted.rank)]),
          );
        const merged =
          "a" in adapted
            ? addPair(weights.get(parameter)!, { ...adapted, b: b as Float32Array, rows: rows.length })
            : rescale(
                weights.get(parameter)!,
                cols,
                adapted.of === "inputs"
                  ? adapted
                  : { of: "outputs", factors: Float32Array.from(rows, (row) => adapted.factors[row]) },
              );
        whole.set(merged);
        expect(relativeDifference(effective.get(parameter)!, whole)).toBeLessThan(1e-6);
        const back =
          "a" in adapted ? addPair(merged, { ...adapted, b: b as Float32Array, rows: rows.length }, -1) : merged;
        if ("a" in adapted) expect(relativeDifference(back, weights.get(parameter)!)).toBeLessThan(1e-6);
      }
    }
  });
});

test("IA³ multiplies what a map gives, its bias too: values, and the gradient as a central difference", async () => {
  const { method } = await adapterMethods.ia3();
  const random = new Random(7);
  const draw = (length: number) => Float64Array.from({ length }, () => random.normal());
  const biased = modules.map((module) => ({
    ...module,
    pieces: module.pieces.map((piece) => ({ ...piece, bias: `${piece.parameter}.bias` })),
  }));
  const lengths = { q: 12, v: 12, down: 32, "q.bias": 3, "v.bias": 3, "down.bias": 4 };
  const weights = new Map(Object.entries(lengths).map(([name, length]) => [name, draw(length)]));
  const targets = new Map(Array.from(weights, ([name, { length }]) => [name, draw(length)]));
  const options = method.options.parse({});
  const objective = adaptedObjective(quadratic(targets), weights, biased, method, options, random);
  const values = new Map(Array.from(objective.first, ([name, { length }]) => [name, draw(length)]));
  const factors = values.get("block.qkv.ia3_l")!;
  const effective = objective.effective(values);
  const expected = Array.from(weights.get("v.bias")!, (b, i) => b * factors[[2, 3, 5][i]]);
  for (const [i, b] of expected.entries()) expect(effective.get("v.bias")![i]).toBeCloseTo(b, 5);
  // Of inputs the bias knows nothing.
  expect([...effective.get("down.bias")!]).toEqual([...weights.get("down.bias")!]);
  const { gradients } = await objective.lossAndGradients(values, {});
  for (const at of [0, 3, 5]) {
    const lossAt = async (shift: number) => {
      const moved = cloneValues(values);
      moved.get("block.qkv.ia3_l")![at] += shift;
      return objective.loss(moved, {});
    };
    const difference = ((await lossAt(1e-2)) - (await lossAt(-1e-2))) / 2e-2;
    expect(gradients.get("block.qkv.ia3_l")![at]).toBeCloseTo(difference, 3);
  }
});

test.each([
  // A pair of rank r for a matrix m × n is r·(m + n) numbers.
  ["lora", { rank: 3 }, 3 * (6 + 4) + 3 * (4 + 8)],
  ["lora", { rank: 1 }, 6 + 4 + (4 + 8)],
  // A factor for every output, or for every input where inputs are multiplied (down_proj by default).
  ["ia3", {}, 6 + 8],
  ["ia3", { inputsOf: ["q_proj", "down_proj"] }, 4 + 8],
])("%s %j trains as many numbers as its formula says", async (kind, given, count) => {
  const { method } = await adapterMethods[kind]();
  const options = method.options.parse(given);
  const parameters = modules.flatMap((module) => method.parameters(module, options, new Random(1)));
  expect(parameters.reduce((sum, { first }) => sum + first.length, 0)).toBe(count);
  for (const { shape, first } of parameters) expect(shape.reduce((a, b) => a * b, 1)).toBe(first.length);
});

test("killed after a step and continued it is the uninterrupted run, bit for bit", async () => {
  const { method } = await adapterMethods.lora();
  const begin = () => {
    const random = new Random(8);
    const draw = (length: number) => Float32Array.from({ length }, () => random.normal());
    const weights = new Map(["q", "v", "down"].map((name) => [name, draw(name === "down" ? 32 : 12)]));
    const targets = new Map(Array.from(weights, ([name, { length }]) => [name, draw(length)]));
    const options = method.options.parse({ rank: 2 });
    const objective = adaptedObjective(quadratic(targets), weights, modules, method, options, new Random(9));
    return new Training({
      objective,
      weights: objective.first,
      optimizer: { rate: constant(0.01) },
      steps: 8,
      seed: 0,
      method: (context) => dense.start(context, {}),
    });
  };
  const advance = async (training: Training, until: number) => {
    while (training.step < until) await training.advance({});
    return Array.from(training.weights, ([name, values]) => [name, ...values]);
  };
  const expected = await advance(begin(), 8);
  const killed = begin();
  await advance(killed, 3);
  const files = new Map<string, Uint8Array>();
  await writeState(memorySinks(files), killed.state);
  const back = begin();
  back.restore((await readState(memoryFiles("memory", files)))!);
  expect(await advance(back, 8)).toEqual(expected);
});

describe("beside the weights", () => {
  test.each(["llama", "gpt2", "phi3", "gpt_neox"])("%s: the logits are those of the merged model", async (name) => {
    const checkpoint = await MemoryCheckpoint.golden(name);
    const adapter = randomAdapter(checkpoint.config, ["q_proj", "v_proj", "down_proj"], 3);
    const tokens = randomTokens(4, 12);
    const [before, expected] = [
      await logits(checkpoint, tokens),
      await logits(await mergeAdapter(checkpoint, adapter), tokens),
    ];
    expect(relativeDifference(expected, before)).toBeGreaterThan(1e-2);
    using backend = await openBackend("wasm");
    using model = await loadModel(checkpoint, backend, { weights: "f32" });
    const other = randomAdapter(checkpoint.config, ["o_proj"], 4);
    const run = async (of: typeof model) => {
      using cache = of.createCache(tokens.length);
      return backend.read((await of.forward(tokens, cache, 0, { logits: "all" }))!);
    };
    const cols = specOf(checkpoint.config).vocabSize;
    const same = (rows: Float32Array) => rows.slice(0, tokens.length * cols);
    {
      // Several at once over one set of weights; each request takes the one it wants.
      using adapted = await withAdapter(model, adapter);
      using both = await withAdapter(adapted, other);
      expect(relativeDifference(same(await run(adapted)), expected)).toBeLessThan(1e-4);
      expect(relativeDifference(same(await run(model)), before)).toBeLessThan(1e-4);
      const two = await logits(
        await mergeAdapter((await mergeAdapter(checkpoint, adapter)) as MemoryCheckpoint, other),
        tokens,
      );
      expect(relativeDifference(same(await run(both)), two)).toBeLessThan(1e-4);
    }
    expect(relativeDifference(same(await run(model)), before)).toBeLessThan(1e-4);
  });

  test("an adapter of another model is refused with all that does not fit", async () => {
    const checkpoint = await MemoryCheckpoint.golden("llama");
    const adapter = await readAdapter(directoryFiles(path("lora_qv_final")));
    expect(() => adaptationsOf(specOf(checkpoint.config), adapter)).toThrow(
      /layers.0.self_attn.q_proj.*has|no such matrix/,
    );
  });
});

describe("tiny-6m and an adapter of PEFT", () => {
  const golden = JSON.parse(readFileSync(path("reference2.json"), "utf8")).lora_qv;

  test("its files are read, and every pair has its matrix", async () => {
    const checkpoint = await openCheckpoint(directoryFiles(path("../../models/tiny-6m")));
    const adapter = await readAdapter(directoryFiles(path("lora_qv_final")));
    expect(adapter.kind === "lora" && Array.from(adapter.modules.values(), ({ scale }) => scale)).toEqual(
      Array(12).fill(2),
    );
    const spec = specOf(checkpoint.config);
    expect(adaptationsOf(spec, adapter).size).toBe(12);
    expect(spec.blocks.flatMap(linearsOf).length).toBe(42);
    await checkpoint.close();
  });

  test("the first steps of training are those of PEFT", async () => {
    const checkpoint = await openCheckpoint(directoryFiles(path("../../models/tiny-6m")));
    const spec = specOf(checkpoint.config);
    const parameters = modelParameters(spec);
    const weights = await readWeights(checkpoint, parameters);
    await checkpoint.close();
    const start = await readAdapter(directoryFiles(path("lora_qv_init")));
    const { method } = await adapterMethods.lora();
    const modules = modulesOf(spec, ["q_proj", "v_proj"]);
    const window = 127;
    using objective = adaptedObjective(
      await decoderObjective(spec, parameters, window),
      weights,
      modules,
      method,
      method.options.parse({}),
      new Random(1),
    );
    for (const module of modules)
      for (const [name, values] of method.values(module, start)!) objective.first.set(name, values);
    expect(Array.from(objective.first.values()).reduce((sum, { length }) => sum + length, 0)).toBe(golden.trainable);
    let gradients: Values = new Map();
    const training = new Training({
      objective: {
        ...objective,
        async lossAndGradients(values, batch) {
          const found = await objective.lossAndGradients(values, batch);
          // The optimiser makes steps of them in place.
          gradients = cloneValues(found.gradients);
          return found;
        },
      },
      weights: objective.first,
      optimizer: { rate: constant(1e-3), beta2: 0.999, epsilon: 1e-8 },
      steps: 40,
      seed: 0,
      method: (context) => dense.start(context, {}),
    });
    const batch = (step: number) => {
      const ids: number[] = golden.tokens.slice(step * 1024, (step + 1) * 1024);
      const rows = Array.from({ length: 8 }, (_, s) => ids.slice(s * 128, (s + 1) * 128));
      const of = (from: number) => Int32Array.from(rows.flatMap((row) => row.slice(from, from + window)));
      return { tokens: { shape: [8 * window], values: of(0) }, label: { shape: [8 * window], values: of(1) } };
    };
    expect((await training.advance(batch(0))).loss).toBeCloseTo(golden.loss_per_step[0], 3);
    const norm = (part: string) => {
      const all = [...gradients].filter(([name]) => name.includes(part)).flatMap(([, values]) => [...values]);
      return Math.sqrt(all.reduce((sum, g) => sum + g * g, 0));
    };
    expect(norm("lora_A")).toBe(0);
    expect(norm("lora_B")).toBeCloseTo(golden.first_step.B_grad_norm, 3);
    expect(await objective.loss(training.weights, batch(1))).toBeCloseTo(golden.loss_per_step[1], 3);
  });
});

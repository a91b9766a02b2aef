import { expect, test } from "vitest";
import { linearsOf, parseModelConfig } from "../../src/arch/index.js";
import { startPredictor } from "../../src/compress/index.js";
import { memorySource } from "../../src/io/index.js";
import { type Backend, type BackendCounters, openBackend } from "../../src/kernels/index.js";
import {
  type ActivationThresholds,
  loadModel,
  type Model,
  type OffloadedFile,
  type OffloadOptions,
  type OffloadShape,
  writeOffloaded,
} from "../../src/model/index.js";
import { weightFormats } from "../../src/pack/index.js";
import { normals } from "../contract/harness.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";

/** Models that are larger than memory give the bits of those that are in it, and stay within their bound. */

/** A small Llama whose MLP is wide enough for something to come and go. */
async function wideLlama(activation: string): Promise<MemoryCheckpoint> {
  const checkpoint = await MemoryCheckpoint.golden("llama");
  const { hidden_size: hidden, num_hidden_layers: layers } = checkpoint.config as Record<string, number>;
  const inner = 256;
  checkpoint.config = { ...checkpoint.config, hidden_act: activation, intermediate_size: inner };
  for (let layer = 0; layer < layers; layer++) {
    const name = (map: string) => `model.layers.${layer}.mlp.${map}.weight`;
    for (const [m, map] of ["gate_proj", "up_proj"].entries()) {
      const bias = map === "gate_proj" ? 0.25 : 0;
      checkpoint.set(
        name(map),
        [inner, hidden],
        normals(10 * layer + m, inner * hidden, 0.2).map((w) => w - bias),
      );
    }
    checkpoint.set(name("down_proj"), [hidden, inner], normals(10 * layer + 5, inner * hidden, 0.1));
  }
  return checkpoint;
}

const specOf = ({ config }: MemoryCheckpoint) => parseModelConfig(config, "config.json").spec;

async function offloadedFile(
  checkpoint: MemoryCheckpoint,
  shape: OffloadShape,
  counts?: Uint32Array,
): Promise<OffloadedFile & { reads: number[] }> {
  const parts: Uint8Array[] = [];
  const sink = { write: async (bytes: Uint8Array) => void parts.push(bytes.slice()) };
  const spec = specOf(checkpoint);
  const { byteLength } = await writeOffloaded(checkpoint, spec, shape, sink, () => counts);
  const bytes = new Uint8Array(Buffer.concat(parts));
  expect(bytes.byteLength).toBe(byteLength);
  const whole = memorySource("offload.bin", bytes);
  const reads: number[] = [];
  const source: typeof whole = {
    ...whole,
    byteLength,
    read(offset, length, into) {
      reads.push(length);
      return whole.read(offset, length, into);
    },
  };
  return { shape, counted: counts !== undefined, source, reads };
}

const prompt = Uint32Array.of(3, 17, 5, 30, 9);
const decoded = [7, 21, 7, 2, 33];

/** The logits of a prompt and of tokens after it, one by one, as bits. */
async function logitsOf(model: Model, after?: () => void): Promise<number[][]> {
  using cache = model.createCache(32);
  const rows: number[][] = [];
  const run = async (tokens: Uint32Array, start: number) => {
    const logits = (await model.forward(tokens, cache, start, start === 0 ? { thresholds: "dense" } : {}))!;
    const values = await model.backend.read(logits);
    rows.push([...new Uint32Array(values.buffer)]);
    model.backend.release(logits);
    after?.();
  };
  await run(prompt, 0);
  for (const [t, token] of decoded.entries()) await run(Uint32Array.of(token), prompt.length + t);
  return rows;
}

interface Case {
  activation: string;
  shape: OffloadShape;
  /** Of every map. */
  threshold: number;
}

const roles = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/** Runs a case in memory, and offloaded with each of the options. */
async function compare(
  backend: () => Promise<Backend>,
  { activation, shape, threshold }: Case,
  optionsOf: (half: number) => readonly OffloadOptions[],
): Promise<void> {
  const checkpoint = await wideLlama(activation);
  const { blocks } = specOf(checkpoint);
  const thresholds: ActivationThresholds = {
    maps: blocks.map(() => Object.fromEntries(roles.map((role) => [role, threshold]))),
  };
  const { weights } = shape;
  using first = await backend();
  using second = await backend();
  let wanted: number[][];
  {
    using whole = await loadModel(checkpoint, first, { weights, structure: "dense", thresholds });
    wanted = await logitsOf(whole);
  }
  const file = await offloadedFile(checkpoint, shape);
  const bytes = { half: 0 };
  const asked = [{ window: 1e6 }, {}, ...[0, 1, 2, 3].map((n) => () => optionsOf(bytes.half)[n])];
  for (const options of asked) {
    const chosen = typeof options === "function" ? options() : options;
    if (chosen === undefined) continue;
    using model = await loadModel(checkpoint, second, { weights, thresholds, offload: { file, options: chosen } });
    const { fixedBytes, promptBytes, roomBytes, offloadedBytes } = model.offload!.plan;
    if (typeof options !== "function") expect(roomBytes).toBe(offloadedBytes);
    if (bytes.half === 0) {
      bytes.half = fixedBytes + promptBytes + Math.ceil(roomBytes * 0.8);
    } else if (typeof options === "function") {
      expect(fixedBytes + promptBytes + roomBytes).toBeLessThanOrEqual(bytes.half);
      expect(roomBytes).toBeGreaterThan(0);
    }
    file.reads.length = 0;
    model.offload!.takeCounters();
    expect(await logitsOf(model), JSON.stringify({ weights, ...chosen })).toEqual(wanted);
    const counted = model.offload!.takeCounters();
    // Where there is room for all everything was read when the model was opened.
    if (options === asked[1]) expect([file.reads, counted.units]).toEqual([[], 0]);
    else expect(counted.units).toBeGreaterThan(counted.hits);
  }
}

const cases: Case[] = [
  { activation: "relu", shape: { weights: "bf16", layout: "neurons", bundled: true }, threshold: 0 },
  { activation: "relu", shape: { weights: "f32", layout: "neurons", bundled: false }, threshold: 0.05 },
  { activation: "drelu", shape: { weights: "bf16", layout: "neurons", bundled: true }, threshold: 0 },
  { activation: "relu", shape: { weights: "q8", layout: "neurons", bundled: true }, threshold: 0 },
  { activation: "drelu", shape: { weights: "q4", layout: "neurons", bundled: false }, threshold: 0.05 },
  ...(["f32", "bf16", "q8", "q4"] as const).map(
    (weights): Case => ({
      activation: "silu",
      shape: { weights, layout: "inputs", bundled: true },
      threshold: 0.05,
    }),
  ),
];

const nameOf = ({ shape: { weights, layout, bundled } }: Case) =>
  `${layout} in ${weights}${bundled ? "" : ", by parts"}`;

test.each(cases.map((one) => [nameOf(one), one] as const))(
  "%s give the bits of the model in memory, on wasm with any room",
  (_, one) =>
    compare(
      () => openBackend("wasm", { threads: 1 }),
      one,
      (residentBytes) => [
        { residentBytes },
        { residentBytes, pipelined: false },
        { residentBytes, clusterUnits: 32, window: 1 },
      ],
    ),
);

const onReference = cases.filter(({ shape: { weights, layout } }) =>
  layout === "neurons" ? weights !== "f32" : weights === "q8",
);

test.each(onReference.map((one) => [nameOf(one), one] as const))("%s, on the reference backend", (_, one) =>
  compare(
    () => openBackend("reference"),
    one,
    (residentBytes) => [{ residentBytes }],
  ),
);

test.each([{}, { window: 100 }])(
  "dReLU: hidden values are ReLU(gate) · ReLU(up), rows of up are read where the gate is open, columns of down where both are; %o",
  async (options) => {
    using backend = await openBackend("wasm", { threads: 1 });
    const checkpoint = await wideLlama("drelu");
    const file = await offloadedFile(checkpoint, { weights: "f32", layout: "neurons", bundled: true });
    using model = await loadModel(checkpoint, backend, { weights: "f32", offload: { file, options } });
    const [hidden, inner] = [model.config.hiddenSize, 256];
    using cache = model.createCache(8);
    const run = async (token: number, at: number) => {
      const seen = new Map<string, Float32Array>();
      const logits = await model.forward(Uint32Array.of(token), cache, at, {
        tap: {
          sites: ["mlpInput", "mlpHidden"],
          async onActivation(layer, site, activation) {
            seen.set(`${layer} ${site}`, await backend.read(activation));
          },
        },
      });
      await backend.flush();
      backend.release(logits!);
      return seen;
    };
    await run(3, 0);
    backend.takeCounters();
    const seen = await run(9, 1);
    const { weightBytesRead } = backend.takeCounters();
    let [open, both] = [0, 0];
    for (const layer of model.config.spec.blocks.keys()) {
      const x = seen.get(`${layer} mlpInput`)!;
      const found = seen.get(`${layer} mlpHidden`)!;
      const product = (map: string, neuron: number) => {
        const w = checkpoint.values(`model.layers.${layer}.mlp.${map}.weight`);
        return x.reduce((sum, value, i) => sum + value * w[neuron * hidden + i], 0);
      };
      for (let neuron = 0; neuron < inner; neuron++) {
        const [gate, up] = [product("gate_proj", neuron), product("up_proj", neuron)];
        expect(found[neuron]).toBeCloseTo(Math.max(0, gate) * Math.max(0, up), 4);
        if (gate > 0) open++;
        if (gate > 0 && up > 0) both++;
      }
    }
    expect(both).toBeGreaterThan(0);
    expect(open).toBeGreaterThan(both);
    const gates = model.config.spec.blocks.length * inner;
    expect(open).toBeLessThan(gates);
    // What else a token reads: attention and the head, all of them.
    const elsewhere = model.config.spec.blocks
      .flatMap((block) => [...linearsOf(block)])
      .filter(({ role }) => !/gate|up|down/.test(role));
    const dense = elsewhere.reduce((sum, { rows, cols }) => sum + rows * cols, model.config.vocabSize * hidden);
    expect(weightBytesRead).toBe(4 * (dense + hidden * (gates + open + both)));
  },
);

test.each(["bf16", "q8", "q4"] as const)(
  "dReLU in %s: kernels that find the open gates read what the host would have them read",
  async (weights) => {
    const checkpoint = await wideLlama("drelu");
    const file = await offloadedFile(checkpoint, { weights, layout: "neurons", bundled: true });
    const read: BackendCounters[] = [];
    for (const options of [{}, { window: 100 }]) {
      using backend = await openBackend("wasm", { threads: 2 });
      using model = await loadModel(checkpoint, backend, { weights, offload: { file, options } });
      using cache = model.createCache(8);
      for (const token of [3, 9]) {
        const logits = await model.forward(Uint32Array.of(token), cache, token === 3 ? 0 : 1);
        await backend.flush();
        backend.release(logits!);
        read.push(backend.takeCounters());
      }
    }
    expect(read.slice(2)).toEqual(read.slice(0, 2));
    const spec = specOf(checkpoint);
    const all = spec.blocks.flatMap((block) => [...linearsOf(block)]).filter(({ role }) => /up|down/.test(role));
    const bytes = all.reduce((sum, { rows, cols }) => sum + weightFormats[weights].byteLength(rows, cols), 0);
    using backend = await openBackend("wasm", { threads: 1 });
    using whole = await loadModel(checkpoint, backend, { weights, structure: "dense" });
    using cache = whole.createCache(8);
    backend.release((await whole.forward(Uint32Array.of(3), cache, 0, { thresholds: "dense" }))!);
    await backend.flush();
    const dense = backend.takeCounters().weightBytesRead;
    expect(read[0].weightBytesRead).toBeLessThan(dense - 0.4 * bytes);
    expect(read[0].weightBytesRead).toBeGreaterThan(dense - bytes);
  },
);

/** A ReLU model with predictors of its neurons, of full rank: their scores are those of the gates, but for rounding. */
async function predicted(from: "own" | "before" = "own") {
  const checkpoint = await wideLlama("relu");
  const spec = specOf(checkpoint);
  const layers = spec.blocks.map((_, layer) => {
    const gate = checkpoint.values(`model.layers.${layer}.mlp.gate_proj.weight`);
    return startPredictor(gate, 256, spec.hiddenSize, spec.hiddenSize);
  });
  const measured = layers.map(() => ({ recall: 1, precision: 1, predictedShare: 1 }));
  const description = {
    predictors: 1 as const,
    rank: spec.hiddenSize,
    from,
    textSha256: "0".repeat(64),
    layers: measured,
  };
  const file = await offloadedFile(checkpoint, { weights: "bf16", layout: "neurons", bundled: true });
  const thresholds: ActivationThresholds = { maps: spec.blocks.map(() => ({})) };
  return { checkpoint, file, thresholds, predictors: { description, layers } };
}

test("predicted neurons: all, or those that the gates open, give the dense bits; fewer read less, none nothing", async () => {
  using backend = await openBackend("wasm", { threads: 1 });
  const { checkpoint, file, thresholds, predictors } = await predicted();
  const load = (predict: number, options: OffloadOptions = {}) =>
    loadModel(checkpoint, backend, {
      weights: "bf16",
      thresholds,
      offload: { file, options: { predict, window: 0, ...options }, predictors },
    });
  let wanted: number[][];
  {
    using whole = await loadModel(checkpoint, backend, { weights: "bf16", structure: "dense", thresholds });
    wanted = await logitsOf(whole);
  }
  const read: number[] = [];
  for (const predict of [-1000, -0.05, 0.5, 1000]) {
    using model = await load(predict);
    let before = 0;
    const logits = await logitsOf(model, () => {
      // What a prompt reads is not predicted.
      if (before === 0) model.offload!.takeCounters();
      before++;
    });
    if (predict < 0) expect(logits).toEqual(wanted);
    else expect(logits).not.toEqual(wanted);
    read.push(model.offload!.takeCounters().bytesRead);
  }
  const layers = predictors.layers.length;
  const bundle = 2 * 3 * predictors.layers[0].inputs;
  // Every neuron of every layer, for each token.
  expect(read[0]).toBe(decoded.length * layers * 256 * bundle);
  expect(read[1]).toBeLessThan(read[0]);
  expect(read[2]).toBeLessThan(read[1]);
  expect(read[2]).toBeGreaterThan(0);
  expect(read[3]).toBe(0);
});

test("neurons that are predicted from the layer before, and read ahead, give the dense bits where all are", async () => {
  using backend = await openBackend("wasm", { threads: 1 });
  const { checkpoint, file, thresholds, predictors } = await predicted("before");
  let wanted: number[][];
  {
    using whole = await loadModel(checkpoint, backend, { weights: "bf16", structure: "dense", thresholds });
    wanted = await logitsOf(whole);
  }
  let residentBytes = 0;
  for (const room of [1, 0.8]) {
    const options = { predict: -1000, ...(residentBytes > 0 && { residentBytes }) };
    using model = await loadModel(checkpoint, backend, {
      weights: "bf16",
      thresholds,
      offload: { file, options, predictors },
    });
    const { fixedBytes, promptBytes, roomBytes } = model.offload!.plan;
    residentBytes = Math.ceil(fixedBytes + promptBytes + 0.8 * roomBytes);
    expect(await logitsOf(model), `room ${room}`).toEqual(wanted);
  }
});

test("the bound holds whenever weights are read, and with room for all each unit is read once", async () => {
  using backend = await openBackend("wasm", { threads: 1 });
  const checkpoint = await wideLlama("silu");
  const thresholds: ActivationThresholds = {
    maps: specOf(checkpoint).blocks.map(() => Object.fromEntries(roles.map((role) => [role, 0.05]))),
  };
  let besides = 0;
  {
    using whole = await loadModel(checkpoint, backend, { weights: "bf16", structure: "dense", thresholds });
    await logitsOf(whole, () => {
      besides = Math.max(besides, backend.memoryBytes() - whole.weightBytes.loaded);
    });
  }
  const file = await offloadedFile(checkpoint, { weights: "bf16", layout: "inputs", bundled: true });
  let most = 0;
  const sample = () => {
    most = Math.max(most, backend.memoryBytes() - besides);
  };
  for (const source of [checkpoint, file.source]) {
    const read = source.read.bind(source) as (...args: unknown[]) => Promise<Uint8Array>;
    Object.assign(source, {
      read(...args: unknown[]) {
        sample();
        return read(...args);
      },
    });
  }
  let residentBytes: number | undefined;
  for (const bounded of [false, true]) {
    most = 0;
    using model = await loadModel(checkpoint, backend, {
      weights: "bf16",
      thresholds,
      offload: { file, options: { residentBytes } },
    });
    const { fixedBytes, promptBytes, roomBytes, offloadedBytes } = model.offload!.plan;
    let prompts = 0;
    await logitsOf(model, () => {
      sample();
      if (prompts++ === 0) model.offload!.takeCounters();
    });
    const { bytesRead, units, hits } = model.offload!.takeCounters();
    expect(most).toBeLessThanOrEqual(residentBytes ?? fixedBytes + promptBytes + roomBytes);
    if (bounded) {
      expect(hits).toBeGreaterThan(0);
      expect(units).toBeGreaterThan(hits);
      expect(bytesRead).toBeGreaterThan(0);
    } else {
      expect({ bytesRead, units }).toEqual({ bytesRead: 0, units: 0 });
      expect(file.reads.reduce((sum, bytes) => sum + bytes, 0)).toBe(offloadedBytes);
    }
    residentBytes = Math.ceil(fixedBytes + promptBytes + roomBytes * 0.8);
  }
});

test("too little memory is refused with what is needed, and so is a machine that cannot", async () => {
  using backend = await openBackend("wasm", { threads: 1 });
  const checkpoint = await wideLlama("relu");
  const file = await offloadedFile(checkpoint, { weights: "bf16", layout: "neurons", bundled: true });
  const load = (options: OffloadOptions) =>
    loadModel(checkpoint, backend, { weights: "bf16", offload: { file, options } });
  const refused = await load({ residentBytes: 100_000 }).catch((error: Error) => error.message);
  const [, least] = /give at least (\d+)/.exec(refused as string) ?? [];
  using model = await load({ residentBytes: Number(least) });
  expect(model.offload!.plan.roomBytes).toBeGreaterThan(0);
  await expect(load({ residentBytes: Number(least) - 4096 })).rejects.toThrow(/are too few/);
});

test("a model that is disposed of while it reads ends its pass, and what still comes lands in nobody's memory", async () => {
  using backend = await openBackend("wasm", { threads: 1 });
  const checkpoint = await wideLlama("relu");
  const file = await offloadedFile(checkpoint, { weights: "bf16", layout: "neurons", bundled: true });
  // With a window units are read when they are needed.
  const load = () => loadModel(checkpoint, backend, { weights: "bf16", offload: { file, options: { window: 4 } } });
  const before = backend.memoryBytes();
  const model = await load();
  const read = file.source.read.bind(file.source);
  const held: (() => void)[] = [];
  Object.assign(file.source, {
    async read(offset: number, length: number, into?: Uint8Array) {
      await new Promise<void>((go) => held.push(go));
      return read(offset, length, into);
    },
  });
  const cache = model.createCache(8);
  const pass = model.forward(Uint32Array.of(5), cache, 0).catch((error: Error) => error.message);
  while (held.length === 0) await new Promise((go) => setTimeout(go, 1));
  model[Symbol.dispose]();
  // Whoever takes memory now must not find those weights in it.
  const others = await Promise.all(Array.from({ length: 64 }, () => backend.openArea!(8192)));
  for (const area of others) area.bytes(0, area.byteLength).fill(7);
  for (const go of held) go();
  expect(await pass).toBe("the model was disposed of while it ran");
  await new Promise((go) => setTimeout(go, 1));
  for (const area of others) expect(area.bytes(0, area.byteLength).every((byte) => byte === 7)).toBe(true);
  for (const one of [cache, ...others]) one[Symbol.dispose]();
  expect(backend.memoryBytes()).toBe(before);
});

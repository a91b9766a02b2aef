import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { linearsOf } from "../../src/arch/index.js";
import { UsageError } from "../../src/core/index.js";
import { type Backend, openBackend } from "../../src/kernels/index.js";
import { loadModel, type Model } from "../../src/model/index.js";
import {
  collect,
  type Exits,
  generate,
  layersDraft,
  parseAttention,
  parseExits,
  parseKv,
  runTogether,
  Sequence,
  type SequenceOptions,
} from "../../src/runtime/index.js";
import { ExitStates, exitFeatures } from "../../src/runtime/internal.js";
import { architectureGolden, architectureNames, load, path } from "../golden/golden.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";
import { arbitraryText, distance } from "./naiveLlama.js";

const layers = 5;
const prompt = arbitraryText(6);
/** After the prompt, and behind how many layers each leaves. */
const following = Uint32Array.of(7, 31, 8, 64, 2, 77, 12, 40, 9, 33);
const depths = [3, 4, 2, 2, 5, 1, 3, 5, 4, 1];
const text = Uint32Array.of(...prompt, ...following);

let backend: Backend;
let model: Model;
beforeAll(async () => {
  backend = await openBackend("wasm", { threads: 1 });
  model = await deepModel(backend);
});
afterAll(() => backend[Symbol.dispose]());

/** The golden llama with its two blocks in turns, no two of them the same. */
async function deepModel(on: Backend): Promise<Model> {
  const checkpoint = await MemoryCheckpoint.golden("llama");
  checkpoint.config = { ...checkpoint.config, num_hidden_layers: layers };
  const names = [...checkpoint.tensors.keys()];
  for (let layer = 2; layer < layers; layer++) {
    for (const name of names.filter((name) => name.startsWith(`model.layers.${layer % 2}.`))) {
      const values = checkpoint.values(name).map((value, i) => value * (1 + 0.1 * Math.sin(i + layer)));
      checkpoint.set(name.replace(/layers\.\d/, `layers.${layer}`), checkpoint.tensors.get(name)!.shape, values);
    }
  }
  return loadModel(checkpoint, on, { weights: "f32" });
}

/** Looks behind every layer, and lets the n-th token leave behind `depths[n]`. */
const leaving = (fill: Exits["fill"], depthOf: (token: number) => number): Exits => ({
  text: "as told",
  fill,
  probed: (all) => Array.from({ length: all - 1 }, (_, l) => l + 1),
  open: () => {
    let tokens = 0;
    return () => {
      const depth = depthOf(tokens++);
      return (ran) => ran >= depth;
    };
  },
});
const asTold = (fill: Exits["fill"]) => leaving(fill, (token) => depths[token]);

/** Logits of the tokens behind the prompt, run one by one. */
async function oneByOne(options: SequenceOptions, of = model, tokens = following) {
  using sequence = new Sequence(of, prompt.length + tokens.length + 4, options);
  const logitsOf = async (part: Uint32Array) => {
    const logits = await sequence.run(part);
    const values = await of.backend.read(logits);
    of.backend.release(logits);
    return values;
  };
  await logitsOf(prompt);
  of.backend.takeCounters();
  const rows: Float32Array[] = [];
  for (let t = 0; t < tokens.length; t++) rows.push(await logitsOf(tokens.subarray(t, t + 1)));
  const counts = sequence.exitCounts && { ...sequence.exitCounts };
  const counters = of.backend.takeCounters();
  // What comes behind them as another prompt needs all that was left out.
  return { rows, counts, counters, next: await logitsOf(Uint32Array.of(5, 6)) };
}

/** By definition: all rows together, layer by layer; logits of every row behind each. @param frozen depth of each row, if it stays as it was there */
async function lens(of: Model, frozen?: (row: number) => number): Promise<Float32Array[][]> {
  const x = of.embed(text);
  using cache = of.createCache(text.length);
  const kept: Float32Array[] = [];
  const behind: Float32Array[][] = [];
  for (let layer = 0; layer < of.config.layers; layer++) {
    await of.block(layer, x, cache, 0);
    const values = await of.backend.read(x);
    const width = x.cols;
    for (let row = 0; row < text.length; row++) {
      if (frozen?.(row) === layer + 1) kept[row] = values.slice(row * width, (row + 1) * width);
      if (frozen !== undefined && layer + 1 > frozen(row)) values.set(kept[row], row * width);
    }
    of.backend.write(x, values);
    const logits = of.head(x);
    const all = await of.backend.read(logits);
    behind.push(Array.from(text, (_, row) => all.slice(row * logits.cols, (row + 1) * logits.cols)));
    of.backend.release(logits);
  }
  of.backend.release(x);
  return behind;
}
/** Prompts run through all layers. */
const depthOfRow = (row: number) => (row < prompt.length ? layers : depths[row - prompt.length]);

describe("tokens that leave early", () => {
  test("with exact keys find in every layer what the whole model leaves there", async () => {
    const { rows, next } = await oneByOne({ exits: asTold("exact") });
    const behind = await lens(model);
    for (const [t, row] of rows.entries()) {
      expect(distance(row, behind[depths[t] - 1][prompt.length + t]), `token ${t}`).toBeLessThan(1e-4);
    }
    const whole = await oneByOne({});
    expect(distance(next, whole.next)).toBeLessThan(1e-4);
    // It makes a difference where they left.
    expect(distance(rows[0], whole.rows[0])).toBeGreaterThan(1e-3);
  });

  test("with propagated keys find those of the states at the exits", async () => {
    const { rows } = await oneByOne({ exits: asTold("propagate") });
    const behind = await lens(model, depthOfRow);
    for (const [t, row] of rows.entries()) {
      expect(distance(row, behind[depths[t] - 1][prompt.length + t]), `token ${t}`).toBeLessThan(1e-4);
    }
    const exact = await oneByOne({ exits: asTold("exact") });
    expect(distance(rows[4], exact.rows[4])).toBeGreaterThan(1e-3);
  });

  test.each(["exact", "propagate"] as const)(
    "evaluated together have the states of tokens one by one, %s",
    async (fill) => {
      const { rows } = await oneByOne({ exits: asTold(fill) });
      using states = new ExitStates(model, leaving(fill, depthOfRow), text.length);
      using cache = model.createCache(text.length);
      const x = model.embed(text);
      states.begin(text.length);
      for (let layer = 0; layer < layers; layer++) {
        await model.block(layer, x, cache, 0);
        await states.ran(layer + 1, x);
      }
      const logits = model.head(x);
      const values = await backend.read(logits);
      for (const [t, row] of rows.entries()) {
        const at = (prompt.length + t) * logits.cols;
        expect(distance(row, values.subarray(at, at + logits.cols))).toBeLessThan(1e-4);
      }
      const mean = (prompt.length * layers + depths.reduce((sum, depth) => sum + depth, 0)) / text.length;
      expect(states.meanExitLayer).toBeCloseTo(mean, 12);
      for (const held of [x, logits]) backend.release(held);
    },
  );

  test("count what they run, and read that and no more", async () => {
    const perLayer = (of: Model) => of.weightBytes.perToken - headBytes(of);
    const headBytes = ({ config }: Model) => 4 * config.vocabSize * config.hiddenSize;
    const sum = depths.reduce((total, depth) => total + depth, 0);
    // Behind the last layer nobody asks.
    const probes = depths.reduce((total, depth) => total + Math.min(depth, layers - 1), 0);
    const whole = depths.filter((depth) => depth === layers).length;
    const exact = await oneByOne({ exits: asTold("exact") });
    // The last two left behind layers 4 and 1: one and four layers are open. All else was run in the end.
    expect(exact.counts).toEqual({ tokens: 10, exitLayers: sum, layersRun: 10 * layers - 1 - 4, probes });
    // Waiting tokens run with the one that needs them: every layer is read once for all of them.
    expect(exact.counters.weightBytesRead).toBe((sum * perLayer(model)) / layers + (probes + whole) * headBytes(model));
    const propagated = await oneByOne({ exits: asTold("propagate") });
    expect(propagated.counts).toEqual({ tokens: 10, exitLayers: sum, layersRun: sum, probes });
    const keyMaps = linearsOf(model.config.spec.blocks[0]).filter(({ id }) => /^[qkv]_proj$/.test(id));
    const keyBytes = keyMaps.reduce((bytes, { rows, cols }) => bytes + 4 * rows * cols, 0);
    expect(propagated.counters.weightBytesRead).toBe(
      (sum * perLayer(model)) / layers + (10 * layers - sum) * keyBytes + (probes + whole) * headBytes(model),
    );
  });

  test("who are taken back, or fail half way, leave nothing behind", async () => {
    using sequence = new Sequence(model, 32, { exits: leaving("exact", (token) => [2, 3, 1, 5, 5][token]) });
    const logits = async (...tokens: number[]) => {
      const held = await sequence.run(Uint32Array.of(...tokens));
      const values = await backend.read(held);
      backend.release(held);
      return values;
    };
    await logits(...prompt);
    for (const id of [7, 31, 8]) await logits(id);
    sequence.rewind(prompt.length + 1);
    const again = await logits(31);
    using other = new Sequence(model, 32);
    backend.release(await other.run(prompt));
    let last = new Float32Array();
    for (const id of [7, 31]) {
      const held = await other.run(Uint32Array.of(id));
      last = (await backend.read(held)) as Float32Array<ArrayBuffer>;
      backend.release(held);
    }
    expect(distance(again, last)).toBeLessThan(1e-4);
  });

  test("more of them than wait at once are run through", async () => {
    const many = Uint32Array.from({ length: 40 }, (_, i) => (i * 7) % 90);
    const { rows, counts, next } = await oneByOne({ exits: leaving("exact", () => 1) }, model, many);
    expect(rows).toHaveLength(40);
    expect(counts).toEqual({ tokens: 40, exitLayers: 40, layersRun: 40 + 32 * (layers - 1), probes: 40 });
    expect(distance(next, (await oneByOne({}, model, many)).next)).toBeLessThan(1e-4);
  });
});

describe("early exit goes with", () => {
  const setups: Record<string, SequenceOptions> = {
    thresholds: {
      thresholds: { maps: Array.from({ length: layers }, () => ({ down_proj: 0.02, q_proj: 0.05, gate_proj: 0.05 })) },
    },
    int8: { kv: parseKv("int8") },
    "a residual": { kv: parseKv("kivi:residual=4") },
    window: { attention: parseAttention("window:size=5,sinks=1") },
    quest: { attention: parseAttention("quest:budget=8,page=4,dense=0") },
  };
  // Once every token waits for nothing, all is as without: whoever leaves changes nothing for others.
  test.each(Object.entries(setups))("%s", async (_name, setup) => {
    const exits = leaving("exact", (token) => [1, 3, 2, 5, 1, 2, 4, 5, 5, 5][token]);
    const [early, whole] = [await oneByOne({ ...setup, exits }), await oneByOne(setup)];
    for (const t of [3, 7, 8, 9]) expect(distance(early.rows[t], whole.rows[t]), `token ${t}`).toBeLessThan(2e-3);
    const propagated = await oneByOne({ ...setup, exits: { ...exits, fill: "propagate" } });
    expect(propagated.rows[0]).toEqual(early.rows[0]);
  });

  test("policies that throw away, where keys are stored at once", async () => {
    for (const kv of ["recent:budget=8", "h2o:budget=8", "sinks:budget=8,positions=slots"].map(parseKv)) {
      const { rows } = await oneByOne({ kv, exits: asTold("propagate") });
      expect(rows.every((row) => row.every(Number.isFinite))).toBe(true);
      expect(() => new Sequence(model, 16, { kv, exits: asTold("exact") })).toThrow(/fill=propagate/);
    }
  });

  test("no draft, no other sequences, no copies", async () => {
    const exits = parseExits("top:least=0.5,from=1");
    const generation = generate(model, prompt, { exits, draft: layersDraft(1), maxTokens: 4, stopIds: [] });
    await expect(collect(generation)).rejects.toThrow(/a draft and early exit/);
    using sequence = new Sequence(model, 16, { exits });
    using plain = new Sequence(model, 16);
    await expect(runTogether([{ sequence, tokens: prompt }])).rejects.toThrow(UsageError);
    await expect(sequence.runRows(prompt)).rejects.toThrow(/one by one/);
    expect(() => plain.copyFrom(sequence, 0)).toThrow(UsageError);
    // A rule that never looks is none.
    const never = generate(model, prompt, {
      exits: parseExits("never"),
      draft: layersDraft(1),
      maxTokens: 4,
      stopIds: [],
    });
    expect((await collect(never)).tokenIds).toHaveLength(4);
  });
});

test("an oracle gives the whole model's greedy tokens with the fewest layers", async () => {
  const options = { maxTokens: 12, stopIds: [] };
  const whole = await collect(generate(model, prompt, options));
  const best = (logits: Float32Array) => logits.reduce((at, value, id) => (value > logits[at] ? id : at), 0);
  // Behind which layer each token's choice is first the last one's.
  const all = Uint32Array.of(...prompt, ...whole.tokenIds);
  const x = model.embed(all);
  using cache = model.createCache(all.length);
  const choices: number[][] = [];
  for (let layer = 0; layer < layers; layer++) {
    await model.block(layer, x, cache, 0);
    const logits = model.head(x);
    const values = await backend.read(logits);
    choices.push(Array.from(all, (_, row) => best(values.subarray(row * logits.cols, (row + 1) * logits.cols))));
    backend.release(logits);
  }
  backend.release(x);
  const fewest = (token: number) =>
    1 + choices.findIndex((choice) => choice[prompt.length + token] === choices[layers - 1][prompt.length + token]);
  const early = await collect(generate(model, prompt, { ...options, exits: leaving("exact", fewest) }));
  expect(early.tokenIds).toEqual(whole.tokenIds);
  const expected = Array.from({ length: 11 }, (_, token) => fewest(token));
  expect(early.exits?.exitLayers).toBe(expected.reduce((sum, depth) => sum + depth, 0));
});

// Two layers each: those who leave do so behind the first.
test.each(architectureNames)(
  "%s: who left is made up for exactly, and keys alone are those of a whole block",
  async (name) => {
    using own = await openBackend("wasm", { threads: 1 });
    using small = await load(path(`arch/${name}`), own, "f32");
    const tokens = architectureGolden(name).ids.slice(0, 4);
    const [early, whole] = [
      await oneByOne({ exits: leaving("exact", (token) => [1, 1, 2, 2][token]) }, small, tokens),
      await oneByOne({}, small, tokens),
    ];
    for (const t of [2, 3]) expect(distance(early.rows[t], whole.rows[t])).toBeLessThan(1e-4);
    const depth = (token: number) => [1, 2, 1, 2][token];
    const { rows } = await oneByOne({ exits: leaving("propagate", depth) }, small, tokens);
    // By definition: a whole block on the state at the exit, of which the keys stay.
    using cache = small.createCache(16);
    const run = async (ids: Uint32Array, start: number, leaves: number) => {
      const x = small.embed(ids, start);
      await small.block(0, x, cache, start);
      const first = small.head(x.rowRange(ids.length - 1, 1));
      const logits = await own.read(first);
      await small.block(1, x, cache, start);
      const second = small.head(x.rowRange(ids.length - 1, 1));
      const values = leaves === 1 ? logits : await own.read(second);
      for (const held of [x, first, second]) own.release(held);
      return values;
    };
    await run(prompt, 0, 2);
    for (const [t, id] of tokens.entries()) {
      const expected = await run(Uint32Array.of(id), prompt.length + t, depth(t));
      expect(distance(rows[t], expected)).toBeLessThan(1e-4);
    }
  },
);

describe("rules", () => {
  test("features of logits", () => {
    const { top, gap } = exitFeatures(Float32Array.of(Math.log(0.2), Math.log(0.5), Math.log(0.3)));
    expect(top).toBeCloseTo(0.5, 6);
    expect(gap).toBeCloseTo(0.2, 6);
    expect(exitFeatures(Float32Array.of(1e4, -1e4, 1e4))).toEqual({ top: 0.5, gap: 0 });
    expect(exitFeatures(Float32Array.of(0, Number.NaN)).top).toBeNaN();
  });

  const features = { top: 0.8, gap: 0.5 };
  const trained = {
    layers: [1, 2, 3, 4].map((count) => ({ layers: count, agreement: 0.5, svm: { gap: 1, top: 1, bias: -count / 2 } })),
    crf: {
      probed: [1, 3],
      gap: 1,
      top: 2,
      bias: -1,
      transitions: [
        [0.5, -0.5],
        [-1, 1],
      ] as [[number, number], [number, number]],
    },
    calibration: { textSha256: "0".repeat(64), windows: 1, window: 8 },
  };
  test("top, gap and svm compare, and are asked where the schedule says", () => {
    const decides = (written: string, at = 1) => parseExits(written, trained).open(layers)()(at, features);
    expect(["top:least=0.8,from=1", "top:least=0.81,from=1"].map((rule) => decides(rule))).toEqual([true, false]);
    expect(["gap:least=0.5,from=1", "gap:least=0.51,from=1"].map((rule) => decides(rule))).toEqual([true, false]);
    // 0.5 + 0.8 − layers / 2
    expect([1, 2, 3].map((at) => decides("svm:from=1", at))).toEqual([true, true, false]);
    expect(parseExits("never").probed(layers)).toEqual([]);
    expect(parseExits("top").probed(32)).toEqual([8, 12, 16, 20, 24, 28]);
    expect(parseExits("top").probed(2)).toEqual([1]);
    expect(parseExits("top:from=2,every=2").probed(7)).toEqual([2, 4, 6]);
    expect(() => parseExits("top:from=5").probed(5)).toThrow(/from 1 to 4/);
  });

  test("crf passes messages from look to look", () => {
    const decide = parseExits("crf:from=1,every=2", trained).open(layers)();
    const seen = Math.exp(0.5 + 2 * 0.8 - 1);
    const first = [1 / (1 + seen), seen / (1 + seen)];
    expect(decide(1, features)).toBe(first[1] > 0.5);
    const weak = { top: 0.1, gap: 0 };
    const stay = first[0] * Math.exp(0.5) + first[1] * Math.exp(-1);
    const leave = (first[0] * Math.exp(-0.5) + first[1] * Math.exp(1)) * Math.exp(2 * 0.1 - 1);
    expect(decide(3, weak)).toBe(leave > stay);
    expect(leave / stay).toBeCloseTo(1.0, 0);
    expect(() => parseExits("crf:from=1,every=1", trained).open(layers)).toThrow(/1, 3, not 1, 2, 3, 4/);
  });

  test.each(["svm", "crf"])("%s that was not trained says how to train it", (rule) => {
    expect(() => parseExits(`${rule}:from=1`).open(layers)).toThrow(/rarefy exits MODEL/);
    expect(() => new Sequence(model, 8, { exits: parseExits(rule) })).toThrow(UsageError);
  });
});

import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { UsageError } from "../../src/core/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { type Backend, openBackend } from "../../src/kernels/index.js";
import type { Model } from "../../src/model/index.js";
import {
  collect,
  generate,
  type Held,
  kvPolicies,
  parseAttention,
  parseKv,
  Sequence,
  type SequenceOptions,
} from "../../src/runtime/index.js";
import { loadTokenizer } from "../../src/text/index.js";
import { architectureGolden, load, logitsOf, path } from "../golden/golden.js";
import { arbitraryText, distance, NaiveLlama } from "./naiveLlama.js";

const length = 40;
const text = arbitraryText(length);
let backend: Backend;
let model: Model;
let dense: Float32Array[];
beforeAll(async () => {
  backend = await openBackend("reference");
  model = await load(path("arch/llama"), backend, "f32");
  dense = await logitsOf(model, text);
});
afterAll(() => backend[Symbol.dispose]());

/** Which of the held goes when one is too many, as an index; they are in the order of their positions. */
type Goes = (held: readonly number[], step: number, mass: readonly number[]) => number;
interface Definition {
  budget: number;
  goes: Goes;
  /** How the shares that query heads give are joined into mass; default their sum. */
  join?: (shares: number[]) => number;
  /** Keys count as of the slots 0, 1, … of what is held. */
  slots?: boolean;
}

const least = (mass: readonly number[]) => mass.indexOf(Math.min(...mass));
/** u_t of step t. */
function uniform(seed: number, step: number): number {
  let x = BigInt(seed);
  for (let t = 0; t <= step; t++) x = (1664525n * x + 1013904223n) % 2n ** 32n;
  return Number(x) / 2 ** 32;
}

const definitions: Record<string, Definition> = {
  "recent:budget=9": { budget: 9, goes: () => 0 },
  "sinks:budget=9": { budget: 9, goes: () => 4 },
  "sinks:budget=9,sinks=0": { budget: 9, goes: () => 0 },
  "sinks:budget=9,sinks=2,positions=slots": { budget: 9, goes: () => 2, slots: true },
  "h2o:budget=10": { budget: 10, goes: (_held, _step, mass) => least(mass.slice(0, -5)) },
  "h2o:budget=10,recent=8": { budget: 10, goes: (_held, _step, mass) => least(mass.slice(0, -8)) },
  "h2o:budget=10,group=max": {
    budget: 10,
    goes: (_held, _step, mass) => least(mass.slice(0, -5)),
    join: (shares) => Math.max(...shares),
  },
  "random:budget=9,seed=3": { budget: 9, goes: (held, step) => Math.floor(uniform(3, step) * (held.length - 4)) },
};

/**
 * Logits after every token where everything is kept, but queries see only what the policy would hold: passes of `rows`
 * tokens, after each of which tokens go one by one until no more than the budget are left.
 */
async function naively(
  { budget, goes, join = (shares) => shares.reduce((a, b) => a + b, 0), slots }: Definition,
  tokens: Uint32Array,
  rows = 1,
  { name = "llama", sees = (_i: number, _j: number): boolean => true } = {},
): Promise<{ logits: Float64Array[]; held: number[][][] }> {
  const naive = await NaiveLlama.golden(name);
  const perLayer = <T>(make: () => T) =>
    Array.from({ length: naive.layers }, () => Array.from({ length: naive.kvHeads }, make));
  const held = perLayer(() => [] as number[]);
  const mass = perLayer(() => new Map<number, number>());
  const logits: Float64Array[] = [];
  for (let i = 0; i < tokens.length; i++) {
    for (const positions of held.flat()) positions.push(i);
    const turn = slots ? held[0][0].length - 1 : i;
    const step = naive.step(tokens[i], turn, (layer, head) =>
      held[layer][naive.keyHead(head)]
        .map((position, slot) => ({ position, turn: slots ? slot : position }))
        .filter(({ position }) => sees(i, position)),
    );
    logits.push(step.logits);
    for (const [layer, heads] of held.entries()) {
      for (const [kvHead, positions] of heads.entries()) {
        const shares = step.shares[layer].filter((_, head) => naive.keyHead(head) === kvHead);
        for (const position of positions) {
          const given = join(shares.map((share) => share.get(position) ?? 0));
          mass[layer][kvHead].set(position, (mass[layer][kvHead].get(position) ?? 0) + given);
        }
        if ((i + 1) % rows !== 0 && i + 1 !== tokens.length) continue;
        for (let step = i - (positions.length - budget) + 1; step <= i; step++) {
          const masses = positions.map((position) => mass[layer][kvHead].get(position)!);
          positions.splice(goes(positions, step, masses), 1);
        }
      }
    }
  }
  return { logits, held };
}

/** Runs tokens in runs of `rows` and compares the logits after each. */
async function expectLogits(
  model: Model,
  options: SequenceOptions,
  expected: readonly ArrayLike<number>[],
  tokens = text,
  rows = 1,
) {
  using sequence = new Sequence(model, tokens.length, { passTokens: rows, ...options });
  for (let done = 0; done < tokens.length; done += rows) {
    const logits = await sequence.run(tokens.subarray(done, done + rows));
    const last = sequence.length - 1;
    const row = await model.backend.read(logits);
    model.backend.release(logits);
    expect(distance(row, expected[last]), `passes of ${rows}, token ${last}`).toBeLessThan(1e-4);
  }
}

test("every policy that throws away is defined here", () => {
  const names = Object.keys(definitions).map((name) => name.split(":")[0]);
  const keepAll = ["full", "int8", "int4", "kivi"];
  // Those that look at a prompt once are in promptKv.test.ts.
  const atPrompt = ["snapkv", "pyramidkv"];
  // What the model itself decides is in contextPruning.test.ts.
  const trained = ["pruned"];
  expect(new Set([...keepAll, ...atPrompt, ...trained, ...names])).toEqual(new Set(Object.keys(kvPolicies)));
  for (const name of keepAll) expect(parseKv(name).eviction).toBeUndefined();
});

test.each([
  "full",
  "recent:budget=40",
  "sinks:budget=40",
  "sinks:budget=41,positions=slots",
  "h2o:budget=40",
  "h2o:budget=999999,group=max",
  "random:budget=40",
])("%s covers everything and is dense", async (name) => {
  for (const rows of [1, 7, length]) await expectLogits(model, { kv: parseKv(name) }, dense, text, rows);
});

describe("attention sees what is held, where it was", () => {
  test.each(Object.entries(definitions))("%s", async (name, definition) => {
    const { logits } = await naively(definition, text);
    expect(distance(dense[length - 1], logits[length - 1])).toBeGreaterThan(1e-2);
    await expectLogits(model, { kv: parseKv(name) }, logits);
  });

  // With keys that count as of their slots a pass goes beyond the budget; that is not what the definition speaks of.
  test.each(Object.entries(definitions).filter(([, { slots }]) => !slots))(
    "%s in longer passes",
    async (name, policy) => {
      const { logits } = await naively(policy, text, 3);
      await expectLogits(model, { kv: parseKv(name) }, logits, text, 3);
    },
  );

  test("on wasm", async () => {
    using wasm = await openBackend("wasm", { threads: 1 });
    const fast = await load(path("arch/llama"), wasm, "f32");
    for (const name of ["sinks:budget=9,sinks=2,positions=slots", "h2o:budget=10", "h2o:budget=10,group=max"]) {
      const { logits } = await naively(definitions[name], text);
      await expectLogits(fast, { kv: parseKv(name) }, logits);
    }
  });

  test("and of that only what a pattern shows", async () => {
    const attention = parseAttention("dilated:window=10,dilation=2,global=3");
    const sees = (i: number, j: number) => ((i - j) % 2 === 0 && i - j < 20) || j < 3;
    for (const name of ["sinks:budget=9", "h2o:budget=10"]) {
      for (const rows of [1, 3]) {
        const { logits } = await naively(definitions[name], text, rows, { sees });
        await expectLogits(model, { attention, kv: parseKv(name) }, logits, text, rows);
      }
    }
  });

  test("and of that only what the model's own window shows", async () => {
    const windowed = await load(path("arch/mistral"), backend, "f32");
    for (const name of ["sinks:budget=9", "h2o:budget=10"]) {
      const { logits } = await naively(definitions[name], text, 1, { name: "mistral", sees: (i, j) => i - j < 8 });
      await expectLogits(windowed, { kv: parseKv(name) }, logits);
    }
  });
});

/** A policy, and what it leaves in each key head, layer after layer, when `run` tokens were run. Alike for all it is one. */
function watched(name: string, run: number) {
  const { text, eviction } = parseKv(name);
  const kept: number[][] = [];
  const evict = (held: Held) => {
    const gone = new Set(eviction!.evict(held));
    const rest = [...held.positions].filter((_, i) => !gone.has(i));
    expect(rest).toHaveLength(held.budget);
    if (held.run === run) kept.push(rest);
    return gone;
  };
  return { kv: { text, eviction: { ...eviction!, evict } }, kept };
}

test("caches hold no more than the budget and one pass, and what policies keep", async () => {
  for (const [name, definition] of Object.entries(definitions)) {
    const { budget } = definition;
    const { held } = await naively(definition, text);
    const { kv, kept } = watched(name, length);
    using sequence = new Sequence(model, length, { kv, passTokens: 1 });
    using all = new Sequence(model, length);
    expect(sequence.byteLength * length).toBe(all.byteLength * (budget + 1) + massBytes(name, budget + 1) * length);
    for (const token of text) backend.release(await sequence.run(Uint32Array.of(token)));
    const heads = held.flat();
    expect(kept).toEqual(name.startsWith("h2o") ? heads : heads.slice(0, 1));
  }
});

/** Bytes of the mass f32 [layers, key heads, slots]. */
const massBytes = (name: string, slots: number) => (name.startsWith("h2o") ? 4 * 2 * 2 * slots : 0);

test("with positions of slots a text goes on beyond what the model was made for", async () => {
  const name = "sinks:budget=9,sinks=2,positions=slots";
  const endless = arbitraryText(model.config.maxPositions + 20);
  const { logits } = await naively(definitions[name], endless);
  await expectLogits(model, { kv: parseKv(name) }, logits, endless);
});

test("positions of slots stay within those of the model, whatever the budget", async () => {
  const { maxPositions } = model.config;
  const kv = (budget: number) => parseKv(`sinks:budget=${budget},positions=slots`);
  for (const [budget, passTokens] of [
    [maxPositions, undefined],
    [maxPositions + 10, undefined],
    [maxPositions - 10, 11],
  ] as const) {
    const make = () => new Sequence(model, maxPositions + 20, { kv: kv(budget), passTokens });
    expect(make).toThrow(UsageError);
    expect(make).toThrow(`sinks:budget=${budget},positions=slots: a budget of ${budget} and passes of`);
  }
  new Sequence(model, maxPositions, { kv: kv(maxPositions + 10) })[Symbol.dispose]();
  // Learned positions end where the table does: a pass must not reach beyond it.
  const learned = await load(path("arch/gpt2"), backend, "f32");
  expect(learned.config.maxPositions).toBe(maxPositions);
  using sequence = new Sequence(learned, maxPositions + 20, { kv: kv(maxPositions - 3) });
  backend.release(await sequence.run(arbitraryText(maxPositions + 20)));
  expect(sequence.length).toBe(maxPositions + 20);
});

test("a sequence that forgot goes back to its beginning alone, and then is as new", async () => {
  for (const name of Object.keys(definitions)) {
    using sequence = new Sequence(model, length, { kv: parseKv(name), passTokens: 1 });
    const first = await backend.read(await sequence.run(text));
    expect(sequence.keepsAll).toBe(false);
    expect([0, 1, length - 1, length].map((to) => sequence.canRewind(to))).toEqual([true, false, false, true]);
    expect(() => sequence.rewind(length - 1)).toThrow(UsageError);
    sequence.rewind(0);
    expect(await backend.read(await sequence.run(text))).toEqual(first);
    sequence.rewind(0);
    backend.release(await sequence.run(text.subarray(0, 2)));
    expect(sequence.canRewind(1)).toBe(!name.startsWith("h2o"));
  }
});

test("heavy hitters of a trained model are those of an independent implementation", async () => {
  using wasm = await openBackend("wasm", { threads: 1 });
  const directory = path("../../models/tiny-6m");
  const trained = await load(directory, wasm, "f32");
  const tokenizer = await loadTokenizer(directoryFiles(directory));
  const book = readFileSync(path("../../models/text/books-eval.txt"), "utf8");
  const tokens = Uint32Array.from(tokenizer.encode(book.slice(0, 10_000)).slice(0, 512));
  const { kv, kept } = watched("h2o:budget=32", 512);
  using sequence = new Sequence(trained, 512, { kv, passTokens: 1 });
  wasm.release(await sequence.run(tokens));
  const newest = Array.from({ length: 16 }, (_, i) => 496 + i);
  const { layers } = trained.config;
  const { kvHeads } = trained.config.blocks[0];
  expect(kept).toHaveLength(layers * kvHeads);
  expect(kept[0]).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 15, 22, 24, 111, ...newest]);
  expect(kept[(layers - 1) * kvHeads + 1]).toEqual([
    0,
    1,
    14,
    15,
    25,
    35,
    63,
    82,
    97,
    118,
    154,
    156,
    194,
    334,
    413,
    486,
    ...newest,
  ]);
});

describe("generate with a KV policy", () => {
  const golden = architectureGolden("llama");
  const idsOf = async (kv: string) =>
    (await collect(generate(model, golden.ids, { maxTokens: golden.greedy.length, stopIds: [], kv: parseKv(kv) })))
      .tokenIds;

  test("that covers everything gives the golden tokens", async () => {
    for (const kv of ["full", "recent:budget=64", "sinks:budget=64,positions=slots", "h2o:budget=64"]) {
      expect(await idsOf(kv)).toEqual(golden.greedy);
    }
  });

  test("that throws away gives the tokens of what it holds", async () => {
    // With so small a budget the prompt runs token by token too.
    const ids = await idsOf("recent:budget=7");
    const whole = Uint32Array.from([...golden.ids, ...ids]);
    const { logits } = await naively({ budget: 7, goes: () => 0 }, whole);
    const best = (row: Float64Array) => row.indexOf(Math.max(...row));
    expect(ids).toEqual(logits.slice(golden.ids.length - 1, -1).map(best));
    expect(ids).not.toEqual(golden.greedy);
  });
});

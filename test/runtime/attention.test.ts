import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Backend, openBackend } from "../../src/kernels/index.js";
import type { Model } from "../../src/model/index.js";
import { type Attention, attentionPatterns, parseAttention, Sequence } from "../../src/runtime/index.js";
import { load, logitsOf, path } from "../golden/golden.js";
import { arbitraryText, distance, NaiveLlama } from "./naiveLlama.js";

/** Positions that matrices are compared at. */
const positions = 70;
/** Tokens that models are run with. */
const length = 40;
const text = arbitraryText(length);

/** Whether the query at i sees the key at j ≤ i. */
type Sees = (i: number, j: number, layer: number, head: number) => boolean;
const block = (position: number, size: number) => Math.floor(position / size);

/** Random key blocks of every query block, written from the protocol of the golden figures. */
function randomBlocks(first: number, window: number, random: number, seed: number, blocks: number): number[][] {
  let x = seed;
  return Array.from({ length: blocks }, (_, query) => {
    const candidates: number[] = [];
    for (let key = first; key <= query - window; key++) candidates.push(key);
    const picked: number[] = [];
    while (picked.length < random && candidates.length > 0) {
      x = Number((1103515245n * BigInt(x) + 12345n) % 2n ** 31n);
      picked.push(...candidates.splice(x % candidates.length, 1));
    }
    return picked.sort((a, b) => a - b);
  });
}
const drawn4 = randomBlocks(1, 2, 2, 7, 18);

const definitions: Record<string, Sees> = {
  causal: () => true,
  "window:size=9": (i, j) => i - j < 9,
  "window:size=9,sinks=4": (i, j) => i - j < 9 || j < 4,
  "longformer:window=12": (i, j) => i - j < 12 || j < 16,
  "longformer:window=12,global=3": (i, j) => i - j < 12 || j < 3,
  "strided:stride=8": (i, j) => i - j < 8 || (i - j) % 8 === 0,
  "strided:stride=8,split=heads": (i, j, _, head) => (head % 2 === 0 ? i - j < 8 : (i - j) % 8 === 0),
  "strided:stride=8,split=layers": (i, j, layer) => (layer % 2 === 0 ? i - j < 8 : (i - j) % 8 === 0),
  "fixed:stride=8,columns=2": (i, j) => block(j, 8) === block(i, 8) || j % 8 >= 6,
  "fixed:stride=8,columns=2,split=heads": (i, j, _, head) =>
    head % 2 === 0 ? block(j, 8) === block(i, 8) : j % 8 >= 6 || j === i,
  "dilated:window=6": (i, j) => (i - j) % 2 === 0 && i - j < 12,
  "dilated:window=5,dilation=3,global=4": (i, j) => ((i - j) % 3 === 0 && i - j < 15) || j < 4,
  "dilated:window=6,split=heads": (i, j, _, head) => (head % 2 === 0 ? i - j < 6 : (i - j) % 2 === 0 && i - j < 12),
  "bigbird:block=4,global=1,window=2,random=2,seed=7": (i, j) =>
    j < 4 || block(i, 4) - block(j, 4) < 2 || drawn4[block(i, 4)].includes(block(j, 4)),
  "bigbird:block=4,global=1,window=2,random=2,seed=7,length=40": (i, j) =>
    block(i, 4) === 9 || j < 4 || block(i, 4) - block(j, 4) < 2 || drawn4[block(i, 4)].includes(block(j, 4)),
};

/** Positions that a pattern shows to one query. */
function seen(attention: Attention, i: number, layer: number, head: number): number[] {
  const positions = new Set<number>();
  for (const [from, to] of attention.see(i, { layer, head })) {
    for (let j = Math.max(0, from); j < Math.min(to, i + 1); j++) positions.add(j);
  }
  return [...positions].sort((a, b) => a - b);
}

const visible = (sees: Sees, i: number, layer: number, head: number) =>
  Array.from({ length: i + 1 }, (_, j) => j).filter((j) => sees(i, j, layer, head));

describe("what a pattern shows", () => {
  test("every pattern is defined here", () => {
    // Those that seek have definitions of their own in dynamicAttention.test.ts.
    const fixed = Object.keys(attentionPatterns).filter((name) => !("seek" in attentionPatterns[name]));
    expect(new Set(Object.keys(definitions).map((name) => name.split(":")[0]))).toEqual(new Set(fixed));
  });

  test.each(Object.entries(definitions))("%s", (name, sees) => {
    const attention = parseAttention(name);
    for (const layer of [0, 1, 2]) {
      for (const head of [0, 1, 2, 3]) {
        for (let i = 0; i < positions; i++) {
          const expected = visible(sees, i, layer, head);
          expect(seen(attention, i, layer, head), `query ${i}, layer ${layer}, head ${head}`).toEqual(expected);
          // After its periods it repeats.
          const { layers, heads } = attention.periods;
          expect(seen(attention, i, layer % layers, head % heads)).toEqual(expected);
        }
      }
    }
  });

  test("the random blocks of BigBird are those of the golden figures", () => {
    // Query blocks 5…15 and 31 of 512 positions in blocks of 16, from an independent implementation.
    const causal = [
      [2],
      [2, 3],
      [2, 3, 4],
      [2, 3, 4],
      [2, 4, 5],
      [2, 3, 6],
      [4, 5, 6],
      [6, 7, 8],
      [2, 7, 8],
      [2, 7, 11],
      [4, 7, 11],
    ];
    const attention = parseAttention("bigbird:block=16");
    const blocksOf = (query: number) => {
      const blocks = new Set(seen(attention, query * 16 + 15, 0, 0).map((position) => block(position, 16)));
      return [...blocks].filter((key) => key >= 2 && key <= query - 3);
    };
    expect(causal.map((_, i) => blocksOf(5 + i))).toEqual(causal);
    expect(blocksOf(31)).toEqual([11, 14, 25]);
    // They do not depend on the order in which they are asked for.
    const again = parseAttention("bigbird:block=16");
    expect(seen(again, 511, 0, 0)).toEqual(seen(attention, 511, 0, 0));
    expect(seen(again, 100, 0, 0)).toEqual(seen(attention, 100, 0, 0));
  });
});

let reference: Backend;
let model: Model;
let dense: Float32Array[];
beforeAll(async () => {
  reference = await openBackend("reference");
  model = await load(path("arch/llama"), reference, "f32");
  dense = await logitsOf(model, text);
});
afterAll(() => reference[Symbol.dispose]());

/** Logits after each run of `chunk` tokens, against what is expected after each token. */
async function expectLogits(model: Model, attention: Attention, expected: readonly ArrayLike<number>[], chunk: number) {
  using sequence = new Sequence(model, length, { attention });
  for (let done = 0; done < length; done += chunk) {
    const logits = await sequence.run(text.subarray(done, done + chunk), { chunk });
    const last = sequence.length - 1;
    const row = await model.backend.read(logits);
    model.backend.release(logits);
    expect(distance(row, expected[last]), `passes of ${chunk}, token ${last}`).toBeLessThan(1e-4);
  }
  expect(sequence.length).toBe(length);
}

test.each([
  "causal",
  "window:size=40",
  "window:size=1,sinks=40",
  "longformer:window=40,global=0",
  "longformer:window=1,global=40",
  "strided:stride=40",
  "strided:stride=1",
  "fixed:stride=40,columns=0",
  "fixed:stride=8,columns=8",
  "fixed:stride=40,columns=40,split=heads",
  "dilated:window=40,dilation=1",
  "dilated:window=40,dilation=1,split=heads",
  "dilated:window=1,global=40",
  "bigbird",
  "bigbird:block=4,random=10",
  "bigbird:block=4,random=0,window=10",
  "bigbird:block=4,random=0,global=10",
  "bigbird:block=40,global=0,window=1,random=0",
])("%s covers everything and is dense", async (name) => {
  for (const chunk of [1, length]) await expectLogits(model, parseAttention(name), dense, chunk);
});

describe("a model attends to those pairs alone", () => {
  const naively = async (sees: Sees) => {
    const naive = await NaiveLlama.golden("llama");
    return Array.from(text, (token, i) => {
      const see = (layer: number, head: number) =>
        visible(sees, i, layer, head).map((position) => ({ position, turn: position }));
      return naive.step(token, i, see).logits;
    });
  };

  test.each(Object.entries(definitions))("%s", async (name, sees) => {
    const expected = await naively(sees);
    if (name !== "causal") expect(distance(dense[length - 2], expected[length - 2])).toBeGreaterThan(1e-2);
    for (const chunk of [1, 19, length]) await expectLogits(model, parseAttention(name), expected, chunk);
  });

  test("on wasm", async () => {
    using backend = await openBackend("wasm", { threads: 1 });
    const fast = await load(path("arch/llama"), backend, "f32");
    for (const name of ["strided:stride=8,split=layers", "dilated:window=6,split=heads"]) {
      const expected = await naively(definitions[name]);
      for (const chunk of [1, 19, length]) await expectLogits(fast, parseAttention(name), expected, chunk);
    }
  });
});

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Random } from "../../src/core/index.js";
import { type Activation, type Backend, type ChosenSlots, type KvCache, openBackend } from "../../src/kernels/index.js";
import type { Model } from "../../src/model/index.js";
import { parseAttention, parseKv, Sequence } from "../../src/runtime/index.js";
import type { Phase } from "../../src/runtime/sight/dynamic.js";
import { largest } from "../../src/runtime/sight/largest.js";
import { normals } from "../contract/harness.js";
import { load, path } from "../golden/golden.js";
import { recording } from "../model/recordingBackend.js";

/** What dynamic patterns choose, against choices made in f64 from their definitions. */
const shape = { queryHeads: 4, kvHeads: 2, width: 8 };
const { queryHeads, kvHeads, width } = shape;
const scale = 1 / Math.sqrt(width);

interface Text {
  q: Float32Array;
  k: Float32Array;
  slot: number;
  rows: number;
}

function text(slot: number, rows: number, seed = 1): Text {
  // Large numbers, so that a few keys have most of the attention.
  const q = normals(seed, rows * queryHeads * width).map((x) => 3 * x);
  return { q, k: normals(seed + 1, (slot + rows) * kvHeads * width), slot, rows };
}

const score = ({ q, k }: Text, row: number, head: number, slot: number): number => {
  const keyAt = (slot * kvHeads + Math.floor((head * kvHeads) / queryHeads)) * width;
  let sum = 0;
  for (let c = 0; c < width; c++) sum += q[(row * queryHeads + head) * width + c] * k[keyAt + c];
  return sum;
};

function softmax(scores: number[]): number[] {
  const most = Math.max(...scores);
  const weights = scores.map((s) => Math.exp(s - most));
  const total = weights.reduce((a, b) => a + b, 0);
  return weights.map((w) => w / total);
}

/** Indices of the k largest, of equals the first. */
const top = (values: readonly number[], k: number): Set<number> =>
  new Set([...values.keys()].sort((a, b) => values[b] - values[a] || a - b).slice(0, k));

/** Slots up to its own that a row sees with a head. */
function seen(choice: ChosenSlots, { slot }: Text, row: number, head: number, alike: boolean): number[] {
  const of = choice.words(alike ? row - (row % 16) : row, head);
  return Array.from({ length: slot + row + 1 }, (_, s) => s).filter((s) => (of[s >> 5] >>> (s & 31)) & 1);
}

describe.each(["reference", "wasm"])("on %s", (id) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await openBackend(id, { threads: 1 });
  });
  afterAll(() => backend[Symbol.dispose]());

  /** What the last layer sees, and how the pattern is written then. @param windows of the layers; undefined: none */
  async function sought(
    pattern: string,
    { q, k, slot, rows }: Text,
    { phase, windows = [undefined] }: { phase?: Phase; windows?: readonly (number | undefined)[] } = {},
  ) {
    const layer = windows.length - 1;
    const kept = { heads: kvHeads, key: width, value: 4 };
    using cache: KvCache = backend.createKvCache({ layers: windows.map(() => kept), slots: slot + rows });
    const upload = (values: Float32Array, cols: number) => {
      const out = backend.allocate(values.length / cols, cols);
      backend.write(out, values);
      return out;
    };
    const values = upload(new Float32Array((slot + rows) * kvHeads * 4), kvHeads * 4);
    const [keys, queries] = [upload(k, kvHeads * width), upload(q, queryHeads * width)];
    backend.appendKv(cache, layer, keys, values, 0);
    const made: Activation[] = [keys, queries, values];
    const scratch = (_: string, rows: number, cols: number) => {
      made.push(backend.allocate(rows, cols));
      return made[made.length - 1];
    };
    const model = {
      backend,
      config: { layers: windows.length, blocks: windows.map(() => ({ queryHeads })), slidingWindows: windows },
    } as unknown as Model;
    using seeker = parseAttention(pattern).seek!(model, slot + rows);
    const choice = await seeker.find({ backend, cache, layer, q: queries, slot, queryHeads, scale, phase, scratch });
    for (const activation of made) backend.release(activation);
    return { choice, text: seeker.text };
  }
  const chosen = async (pattern: string, data: Text, phase?: Phase) => (await sought(pattern, data, { phase })).choice;

  test.each(["each", "max", "sum"])("quest reads the pages with the largest bounds, group=%s", async (group) => {
    const page = 5;
    for (const [slot, rows] of [
      [73, 1],
      [61, 9],
    ]) {
      const data = text(slot, rows);
      const result = (await chosen(`quest:budget=20,page=${page},dense=0,group=${group}`, data, "decode"))!;
      for (let row = 0; row < rows; row++) {
        const bounds = Array.from({ length: queryHeads }, (_, head) =>
          Array.from({ length: Math.floor((slot + row) / page) + 1 }, (_, p) => {
            let bound = 0;
            for (let c = 0; c < width; c++) {
              const products: number[] = [];
              for (let s = p * page; s < Math.min((p + 1) * page, slot + row + 1); s++) {
                const keyAt = (s * kvHeads + Math.floor(head / 2)) * width;
                products.push(data.q[(row * queryHeads + head) * width + c] * data.k[keyAt + c]);
              }
              bound += Math.max(...products);
            }
            return bound;
          }),
        );
        for (const [head, own] of bounds.entries()) {
          for (const [p, bound] of own.entries()) {
            for (let s = p * page; s < Math.min((p + 1) * page, slot + row + 1); s++) {
              expect(score(data, row, head, s)).toBeLessThanOrEqual(bound + 1e-6);
            }
          }
          const [a, b] = [bounds[head & ~1], bounds[head | 1]];
          const joined = own.map((x, p) =>
            group === "each" ? x : group === "max" ? Math.max(a[p], b[p]) : a[p] + b[p],
          );
          const pages = top(joined, 4);
          const wanted = Array.from({ length: slot + row + 1 }, (_, s) => s).filter((s) =>
            pages.has(Math.floor(s / page)),
          );
          expect(seen(result, data, row, head, false), `row ${row}, head ${head}`).toEqual(wanted);
        }
      }
    }
  });

  test("quest sees all of prompts, in its first layers, and where the budget covers the text", async () => {
    expect(await chosen("quest:budget=20,page=5,dense=0", text(0, 60), "prompt")).toBeUndefined();
    expect(await chosen("quest:budget=20,page=5,dense=1", text(59, 1), "decode")).toBeUndefined();
    expect(await chosen("quest:budget=60,page=5,dense=0", text(59, 1), "decode")).toBeUndefined();
  });

  test("block-sparse sees the blocks whose mean keys fit the mean queries, and its own", async () => {
    const data = text(256, 130);
    const result = (await chosen("block-sparse:blocks=3", data))!;
    for (const block of [0, 1, 2]) {
      const rows = Array.from({ length: Math.min(64, 130 - 64 * block) }, (_, r) => 64 * block + r);
      const visible = Math.floor((256 + rows.at(-1)!) / 64) + 1;
      for (let head = 0; head < queryHeads; head++) {
        const means = Array.from({ length: visible }, (_, b) => {
          if (b >= 4 + block) return Number.POSITIVE_INFINITY;
          const slots = Array.from({ length: 64 }, (_, s) => 64 * b + s);
          return rows.reduce((sum, row) => sum + slots.reduce((part, s) => part + score(data, row, head, s), 0), 0);
        });
        const blocks = top(means, 3);
        const wanted = (row: number) =>
          Array.from({ length: 256 + row + 1 }, (_, s) => s).filter((s) => blocks.has(Math.floor(s / 64)));
        for (const row of [rows[0], rows.at(-1)!]) expect(seen(result, data, row, head, true)).toEqual(wanted(row));
      }
    }
  });

  test("vertical-slash sees what the last rows look at, from every row", async () => {
    const [slot, rows, queries] = [300, 50, 7];
    const data = text(slot, rows, 5);
    const result = (await chosen(`vertical-slash:vertical=96,slash=64,queries=${queries}`, data))!;
    for (let head = 0; head < queryHeads; head++) {
      const blocks = Math.ceil((slot + rows) / 32);
      const [columns, distances] = [new Array(blocks).fill(0), new Array(blocks).fill(0)];
      for (let row = rows - queries; row < rows; row++) {
        const shares = softmax(Array.from({ length: slot + row + 1 }, (_, s) => score(data, row, head, s) * scale));
        for (const [s, share] of shares.entries()) {
          columns[s >> 5] += share;
          distances[(slot + row - s) >> 5] += share;
        }
      }
      columns[0] = distances[0] = Number.POSITIVE_INFINITY;
      const [verticals, slashes] = [top(columns, 3), top(distances, 2)];
      for (const row of [0, 15, 16, rows - 1]) {
        const visible = seen(result, data, row, head, true);
        // Whole blocks: all that is asked for, and no block that has nothing of it for any of the 16 rows.
        const group = Array.from({ length: 16 }, (_, r) => row - (row % 16) + r).filter((r) => r < rows);
        const wantedBy = (r: number, s: number) => verticals.has(s >> 5) || slashes.has((slot + r - s) >> 5);
        const wanted = new Set<number>();
        for (const r of group) for (let s = 0; s <= slot + r; s++) if (wantedBy(r, s)) wanted.add(s >> 5);
        expect(visible).toEqual(Array.from({ length: slot + row + 1 }, (_, s) => s).filter((s) => wanted.has(s >> 5)));
      }
    }
  });

  test.each([0, 2])("xattention sees the fewest blocks with the share asked for, and %i sinks", async (sinks) => {
    const [slot, rows, block, stride] = [256, 64, 32, 4];
    const data = text(slot, rows, 9);
    const result = (await chosen(`xattention:share=80,block=${block},stride=${stride},sinks=${sinks}`, data))!;
    for (let head = 0; head < queryHeads; head++) {
      for (let b = 0; b < rows / block; b++) {
        const worth = new Array((slot + rows) / block).fill(0);
        for (let a = (b * block) / stride; a < ((b + 1) * block) / stride; a++) {
          const visible = Math.floor((slot + (a + 1) * stride - 1) / stride) + 1;
          const estimates = Array.from({ length: visible }, (_, g) => {
            let sum = 0;
            for (let t = 0; t < stride; t++) sum += score(data, (a + 1) * stride - 1 - t, head, g * stride + t);
            return (sum * scale) / stride;
          });
          for (const [g, share] of softmax(estimates).entries()) worth[Math.floor((g * stride) / block)] += share;
        }
        const own = slot / block + b;
        const forced = worth.map((w, i) => (i < sinks || i >= own ? Number.POSITIVE_INFINITY : w));
        const total = worth.reduce((x, y) => x + y, 0);
        const order = [...top(forced, worth.length)];
        let sum = 0;
        const blocks = new Set(
          order.filter((i) => {
            const wanted = forced[i] === Number.POSITIVE_INFINITY || sum < 0.8 * total;
            if (wanted) sum += worth[i];
            return wanted;
          }),
        );
        expect(blocks.size).toBeLessThan(worth.length);
        for (const row of [b * block, (b + 1) * block - 1]) {
          const wanted = Array.from({ length: slot + row + 1 }, (_, s) => s).filter((s) =>
            blocks.has(Math.floor(s / block)),
          );
          expect(seen(result, data, row, head, true), `head ${head}, row ${row}`).toEqual(wanted);
        }
      }
    }
  });

  test("minference takes the pattern that is written, and by itself the one that shows most", async () => {
    const data = text(512, 64, 3);
    const of = async (heads: string) => (await chosen(`minference:budget=128,heads=${heads}`, data))!;
    const patterns = { a: await of("aaaa"), v: await of("vvvv"), b: await of("bbbb") };
    const searched = await of("search");
    const shown = (choice: ChosenSlots, head: number) => {
      let sum = 0;
      for (let row = 48; row < 64; row++) {
        const shares = softmax(Array.from({ length: 512 + row + 1 }, (_, s) => score(data, row, head, s) * scale));
        for (const s of seen(choice, data, row, head, true)) sum += shares[s];
      }
      return sum;
    };
    for (let head = 0; head < queryHeads; head++) {
      const recalls = Object.values(patterns).map((choice) => shown(choice, head));
      const best = Object.values(patterns)[recalls.indexOf(Math.max(...recalls))];
      expect(seen(searched, data, 40, head, true)).toEqual(seen(best, data, 40, head, true));
    }
    const mixed = await of("avbv");
    for (const [head, letter] of [..."avbv"].entries()) {
      const own = patterns[letter as keyof typeof patterns];
      expect(seen(mixed, data, 63, head, true)).toEqual(seen(own, data, 63, head, true));
    }
    await expect(of("av")).rejects.toThrow("does not name the heads");
  });

  test("where layers have windows of their own, minference names the heads of the others, and reads that again", async () => {
    const data = text(512, 64, 3);
    const windows = [32, undefined, 32, undefined];
    const pattern = "minference:budget=128,queries=16,heads=";
    // Of two layers that search only one has asked.
    expect((await sought(`${pattern}search`, data, { windows })).text).toBe(`${pattern}search`);
    const found = await sought(`${pattern}search`, data, { windows: [32, undefined] });
    expect(found.text).toMatch(/heads=\.[avb]{4}$/);
    const again = await sought(found.text!, data, { windows: [32, undefined] });
    expect(again.text).toBe(found.text);
    for (let head = 0; head < queryHeads; head++) {
      expect(seen(again.choice!, data, 63, head, true)).toEqual(seen(found.choice!, data, 63, head, true));
    }
    await expect(sought(`${pattern}avbv.`, data, { windows: [32, undefined] })).rejects.toThrow(
      "does not name the heads",
    );
  });
});

test("largest: the k largest, of equals the first, whatever is not a number last", () => {
  const random = new Random(1);
  for (let n = 0; n < 300; n++) {
    const values = Float32Array.from({ length: 1 + random.integer(40) }, () => random.integer(6));
    if (n % 7 === 0) values[random.integer(values.length)] = Number.NaN;
    const k = random.integer(values.length + 2);
    const numbers = [...values].map((v) => (Number.isNaN(v) ? Number.NEGATIVE_INFINITY : v));
    expect(largest(values, k)).toEqual([...top(numbers, k)].sort((a, b) => a - b));
  }
});

test("a dynamic pattern with a policy that throws away is refused; with codes it is not", async () => {
  using backend = await openBackend("wasm", { threads: 1 });
  using model = await load(path("arch/llama"), backend, "f32");
  const attention = parseAttention("quest:budget=16");
  expect(() => new Sequence(model, 32, { attention, kv: parseKv("recent:budget=8") })).toThrow("stay where they are");
  using _ = new Sequence(model, 32, { attention, kv: parseKv("int8") });
});

test("where rotation and attention are one operation, a dynamic pattern takes them apart: the same logits", async () => {
  using backend = await openBackend("wasm", { threads: 1 });
  const attention = parseAttention("quest:budget=12,page=4,dense=0");
  const tokens = Uint32Array.from({ length: 24 }, (_, i) => (i * 7) % 50);
  const results: Float32Array[] = [];
  for (const fused of [true, false]) {
    const recorded = recording(backend, fused);
    using model = await load(path("arch/llama"), recorded.backend, "f32");
    using sequence = new Sequence(model, 25, { attention });
    backend.release(await sequence.run(tokens));
    const logits = await sequence.run(Uint32Array.of(3));
    results.push(await backend.read(logits));
    backend.release(logits);
    if (fused) expect(recorded.take().some((line) => line.startsWith("rotatedAttention"))).toBe(false);
  }
  expect(results[0]).toEqual(results[1]);
});

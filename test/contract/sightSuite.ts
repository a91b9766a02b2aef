import { expect, it } from "vitest";
import { Random } from "../../src/core/index.js";
import {
  type AttentionMass,
  type Backend,
  type KeyBlocks,
  type KvCache,
  keyBlocks,
  type RopeTable,
  type SightSpec,
  type SlotRange,
} from "../../src/kernels/index.js";
import { wholeHeads } from "../../src/kernels/internal.js";
import { type BackendUnderTest, expectWithin, normals, upload } from "./harness.js";
import * as oracle from "./oracle.js";

interface Shape {
  queryHeads: number;
  heads: number;
  key: number;
  value: number;
}

/** Who sees what of a pass, by query head. */
type See = (row: number, head: number, slot: number) => boolean;

/** The same blocks, the last one first in each list. */
function backward(spec: KeyBlocks): KeyBlocks {
  const lists = Array.from(spec.first.subarray(1), (end, i) => [spec.first[i], end]);
  const turned = (words: Uint32Array) =>
    Uint32Array.from(lists.flatMap(([from, to]) => [...words.subarray(from, to)].reverse()));
  return { ...spec, blocks: turned(spec.blocks), masks: turned(spec.masks) };
}

/** Attention over slots, blocks that are not read, moves, and what slots were given: against boolean matrices in f64. */
export function sightSuite(backend: () => Backend, { tolerances, fewLayouts }: BackendUnderTest): void {
  const bound = `|Δ| ≤ ${tolerances.attention}·(1 + Σ|q·k|·scale)·max|v| + 1e-6`;

  /** A cache whose only layer holds `slots` random entries. */
  function filled(shape: Shape, slots: number, seed: number, mass?: AttentionMass) {
    const b = backend();
    const { heads, key, value } = shape;
    const keys = normals(seed, slots * heads * key);
    const values = normals(seed + 1, slots * heads * value);
    const cache = b.createKvCache({ layers: [shape], slots: slots + 3, mass });
    append(cache, keys, values, shape, 0);
    return { cache, keys, values };
  }

  function append(cache: KvCache, keys: Float32Array, values: Float32Array, { heads, key, value }: Shape, at: number) {
    const b = backend();
    const rows = keys.length / heads / key;
    const [k, v] = [upload(b, rows, heads * key, keys), upload(b, rows, heads * value, values)];
    b.appendKv(cache, 0, k, v, at);
    for (const activation of [k, v]) b.release(activation);
  }

  async function attend(
    cache: KvCache,
    { queryHeads, key, value }: Shape,
    q: Float32Array,
    start: number,
    spec?: SightSpec,
  ): Promise<Float32Array> {
    const b = backend();
    const rows = q.length / queryHeads / key;
    const [x, out] = [upload(b, rows, queryHeads * key, q), b.allocate(rows, queryHeads * value)];
    const sight = spec && b.loadSight(spec);
    b.attention(out, x, cache, 0, { queryHeads, scale: 0.4, start, sight });
    sight?.[Symbol.dispose]();
    const result = await b.read(out);
    for (const activation of [x, out]) b.release(activation);
    return result;
  }

  const layouts: readonly Shape[] = [
    { queryHeads: 4, heads: 2, key: 16, value: 16 },
    { queryHeads: 6, heads: 1, key: 20, value: 8 },
    { queryHeads: 8, heads: 8, key: 4, value: 4 },
    { queryHeads: 2, heads: 2, key: 128, value: 64 },
    { queryHeads: 20, heads: 1, key: 32, value: 32 },
    { queryHeads: 3, heads: 3, key: 24, value: 140 },
  ];
  const shapes = fewLayouts ? layouts.slice(0, 2) : layouts;

  const expected = (shape: Shape, data: { q: Float32Array; keys: Float32Array; values: Float32Array }, see: See) =>
    oracle.seenAttention({ ...data, ...shape, scale: 0.4, see }, tolerances.attention);

  it(`attention: any block mask, heads alike and each its own, keys and values of different widths, ${bound}`, async () => {
    const random = new Random(5);
    for (const [i, shape] of shapes.entries()) {
      for (const [rows, slots, share, tables] of [
        [1, 70, 0.5, 1],
        [1, 300, 0.02, 2],
        [40, 75, 0.4, 1],
        [17, 200, 0.01, 2],
        [35, 35, 1, 1],
        [3, 64, 0, 1],
      ]) {
        const bits = Array.from({ length: tables * rows * slots }, () => random.uniform() < share);
        const tableOf = (head: number) => head % tables;
        const see = (row: number, table: number, slot: number) => bits[(table * rows + row) * slots + slot];
        const { cache, keys, values } = filled(shape, slots, 10 * i);
        const q = normals(i + 7, rows * shape.queryHeads * shape.key);
        const tableOfHead = Array.from({ length: shape.queryHeads }, (_, head) => tableOf(head));
        const spec = keyBlocks({ rows, slots, tableOfHead }, (row, table) =>
          Array.from({ length: slots }, (_, slot) => slot)
            .filter((slot) => see(row, table, slot))
            .map((slot): SlotRange => [slot, slot + 1]),
        );
        const actual = await attend(cache, shape, q, slots - rows, spec);
        const wanted = expected(shape, { q, keys, values }, (row, head, slot) => see(row, tableOf(head), slot));
        const which = `${JSON.stringify(shape)}, ${rows} rows of ${slots} slots, ${share}`;
        expectWithin(actual, wanted, which);
        // Blocks are read in the order of the list, which may be any.
        if (i === 0) expectWithin(await attend(cache, shape, q, slots - rows, backward(spec)), wanted, which);
        cache[Symbol.dispose]();
      }
    }
  });

  it(`attention: bidirectional, ${bound}`, async () => {
    for (const [i, shape] of shapes.entries()) {
      for (const rows of [1, 5, 40]) {
        const { cache, keys, values } = filled(shape, rows, i);
        const q = normals(i + 7, rows * shape.queryHeads * shape.key);
        const actual = await attend(cache, shape, q, 0, { kind: "bidirectional" });
        expectWithin(
          actual,
          expected(shape, { q, keys, values }, () => true),
          JSON.stringify(shape),
        );
        cache[Symbol.dispose]();
      }
    }
  });

  it("attention: key blocks that no row of a group sees are not read: NaN in them changes nothing", async () => {
    const shape = shapes[0];
    const [rows, slots] = [20, 200];
    const { cache, keys, values } = filled(shape, slots, 3);
    const q = normals(8, rows * shape.queryHeads * shape.key);
    // Blocks 0, 2 and 4 for the first 16 rows, 2 and 5 for the others.
    const seen = (row: number): SlotRange[] =>
      row < 16
        ? [
            [0, 32],
            [70, 80],
            [130, 160],
          ]
        : [
            [64, 96],
            [165, 170],
          ];
    const spec = keyBlocks({ rows, slots, tableOfHead: [0, 0, 0, 0] }, seen);
    expect([...spec.first]).toEqual([0, 3, 5]);
    expect([...spec.blocks]).toEqual([0, 2, 4, 2, 5]);
    const clean = await attend(cache, shape, q, slots - rows, spec);
    for (const block of [1, 3, 6]) {
      const [from, to] = [block * 32, Math.min(slots, block * 32 + 32)];
      const nothing = (width: number) => new Float32Array((to - from) * shape.heads * width).fill(Number.NaN);
      append(cache, nothing(shape.key), nothing(shape.value), shape, from);
    }
    expect(await attend(cache, shape, q, slots - rows, spec)).toEqual(clean);
    const wanted = expected(shape, { q, keys, values }, (row, _head, slot) =>
      seen(row).some(([from, to]) => slot >= from && slot < to),
    );
    expectWithin(clean, wanted, "blocks");
    cache[Symbol.dispose]();
  });

  it("attention counts the bytes of keys and values that 16 rows have to read together", async () => {
    const b = backend();
    const shape = { queryHeads: 4, heads: 2, key: 8, value: 4 };
    const { cache } = filled(shape, 200, 3);
    const bytes = async (rows: number, spec?: SightSpec) => {
      b.takeCounters();
      await attend(cache, shape, normals(8, rows * 32), 200 - rows, spec);
      return b.takeCounters().kvBytesRead / (2 * 12 * 4);
    };
    expect(await bytes(1)).toBe(200);
    expect(await bytes(20)).toBe(196 + 200);
    expect(await bytes(1, { kind: "causal", window: 50 })).toBe(50);
    expect(await bytes(20, { kind: "causal", window: 50 })).toBe(65 + 53);
    expect(await bytes(20, { kind: "bidirectional" })).toBe(400);
    const oneTable = [0, 0, 0, 0];
    // Blocks of 32; the last one, of 8.
    const ends = keyBlocks({ rows: 1, slots: 200, tableOfHead: oneTable }, () => [
      [0, 4],
      [190, 200],
    ]);
    expect(await bytes(1, ends)).toBe(32 + 32 + 8);
    // Heads 2 and 3, of the second key head, see less.
    const uneven = keyBlocks({ rows: 1, slots: 200, tableOfHead: [0, 0, 1, 1] }, (_row, table) =>
      table === 0 ? [[0, 64]] : [[0, 1]],
    );
    expect(await bytes(1, uneven)).toBe((64 + 32) / 2);
    cache[Symbol.dispose]();
  });

  it(`moveKv: what is kept gives what all of it gives with the rest masked, ${bound}`, async () => {
    const b = backend();
    const random = new Random(9);
    for (const [i, shape] of shapes.entries()) {
      const [slots, kept] = [90, 50];
      const { cache, keys, values } = filled(shape, slots, i);
      // Each key head keeps its own.
      const gone = Array.from({ length: shape.heads }, () => {
        const all = Array.from({ length: slots }, (_, slot) => slot);
        return new Set(Array.from({ length: slots - kept }, () => all.splice(random.integer(all.length), 1)[0]));
      });
      const moves = gone.flatMap((set, head) => {
        const free = [...set].filter((slot) => slot < kept);
        const late = Array.from({ length: slots - kept }, (_, n) => kept + n).filter((slot) => !set.has(slot));
        return late.map((from, n) => ({ head, from, to: free[n] }));
      });
      b.moveKv(cache, 0, {
        heads: Uint32Array.from(moves, ({ head }) => head),
        from: Uint32Array.from(moves, ({ from }) => from),
        to: Uint32Array.from(moves, ({ to }) => to),
      });
      const q = normals(i + 7, shape.queryHeads * shape.key);
      const actual = await attend(cache, shape, q, kept - 1);
      const perKey = shape.queryHeads / shape.heads;
      const wanted = expected(
        shape,
        { q, keys, values },
        (_row, head, slot) => !gone[Math.floor(head / perKey)].has(slot),
      );
      expectWithin(actual, wanted, JSON.stringify(shape));
      cache[Symbol.dispose]();
    }
  });

  it("moveKv: a turned key is the key of a token so much later, or earlier", async () => {
    const b = backend();
    const shape = { queryHeads: 2, heads: 2, key: 16, value: 4 };
    const layouts = [wholeHeads(shape.key), { headDim: shape.key, first: 2, width: 6, pairs: "neighbours" } as const];
    const tables = layouts.map((layout) => {
      const { cos, sin } = oracle.ropeTable(64, layout.width, 10000);
      return b.loadRope(cos, sin, layout);
    });
    const raw = normals(1, 32);
    const values = normals(2, 8);
    const q = normals(3, 32);
    /** The key as of a token at `position`, in slot 0. */
    const rotated = async (table: RopeTable, position: number) => {
      const x = upload(b, 1, 32, raw);
      b.rope(x, table, position);
      const keys = await b.read(x);
      b.release(x);
      return keys;
    };
    // A second entry, so that scores matter.
    const other = normals(4, 32);
    const turns = [
      [5, 42],
      [42, 5],
      [7, 7],
    ];
    for (const [table, from, to] of tables.flatMap((table) => turns.map(([from, to]) => [table, from, to] as const))) {
      const results: Float32Array[] = [];
      for (const turned of [true, false]) {
        using cache = b.createKvCache({ layers: [shape], slots: 4 });
        append(cache, await rotated(table, turned ? from : to), values, shape, turned ? 2 : 0);
        append(cache, other, normals(5, 8), shape, 1);
        if (turned) {
          const heads = Uint32Array.of(0, 1);
          const by = Int32Array.of(to - from, to - from);
          b.moveKv(cache, 0, { heads, from: Uint32Array.of(2, 2), to: Uint32Array.of(0, 0), turn: { table, by } });
        }
        results.push(await attend(cache, shape, q, 1));
      }
      for (const [d, value] of results[0].entries()) expect(Math.abs(value - results[1][d])).toBeLessThan(2e-5);
    }
  });

  for (const mass of ["sum", "max"] as const) {
    it(`readMass: the ${mass} over the heads of a key head of what each slot was given, by all rows since it was filled`, async () => {
      const b = backend();
      for (const [i, shape] of shapes.entries()) {
        const [rows, slots] = [19, 75];
        const { cache, keys } = filled(shape, slots, i, mass);
        const given = new Float64Array(shape.heads * slots);
        const causal: See = (row, _head, slot) => slot <= slots - rows + row;
        const some: See = (row, head, slot) => (slot + row + (head % 2)) % 3 === 0;
        const tableOfHead = Array.from({ length: shape.queryHeads }, (_, head) => head % 2);
        const blocks = keyBlocks({ rows, slots, tableOfHead }, (row, table) =>
          Array.from({ length: slots }, (_, slot): SlotRange => [slot, slot + 1]).filter(([slot]) =>
            some(row, table, slot),
          ),
        );
        for (const [see, spec, seed] of [
          [causal, undefined, 50],
          [some, blocks, 60],
          [causal, undefined, 70],
        ] as const) {
          const q = normals(seed + i, rows * shape.queryHeads * shape.key);
          await attend(cache, shape, q, slots - rows, spec);
          oracle.addMass(given, { q, keys, ...shape, scale: 0.4, see }, mass);
        }
        const [actual] = await b.readMass(cache);
        const capacity = cache.spec.slots;
        expect(actual.length).toBe(shape.heads * capacity);
        for (let head = 0; head < shape.heads; head++) {
          for (let slot = 0; slot < slots; slot++) {
            const wanted = given[head * slots + slot];
            const off = Math.abs(actual[head * capacity + slot] - wanted);
            expect(off, `head ${head}, slot ${slot}: ${wanted}`).toBeLessThanOrEqual(1e-4 * (1 + wanted));
          }
        }
        // What moves takes its mass along, and what is new has none.
        b.moveKv(cache, 0, { heads: Uint32Array.of(0), from: Uint32Array.of(70), to: Uint32Array.of(2) });
        append(cache, keys.subarray(0, shape.heads * shape.key), new Float32Array(shape.heads * shape.value), shape, 5);
        const [after] = await b.readMass(cache);
        expect(after[2]).toBe(actual[70]);
        for (let head = 0; head < shape.heads; head++) expect(after[head * capacity + 5]).toBe(0);
        expect(after[6]).toBe(actual[6]);
        cache[Symbol.dispose]();
      }
    });
  }
}

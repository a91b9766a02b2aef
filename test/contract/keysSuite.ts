import { expect, it } from "vitest";
import type { Backend, KvCodes, MorphemeScoreOptions, PoolOptions } from "../../src/kernels/index.js";
import { type Expected, expectWithin, normals, type Tolerances, upload } from "./harness.js";

const pools: Readonly<Record<PoolOptions["pool"], (values: readonly number[]) => number>> = {
  mean: (values) => values.reduce((a, b) => a + b) / values.length,
  least: (values) => Math.min(...values),
  largest: (values) => Math.max(...values),
};

/** What patterns that look before attention does are made of, against f64. */
export function keysSuite(backend: () => Backend, tolerances: Tolerances): void {
  const shapes = [
    { queryHeads: 4, kvHeads: 2, key: 16 },
    { queryHeads: 3, kvHeads: 1, key: 20 },
    { queryHeads: 2, kvHeads: 2, key: 132 },
  ];

  it("readKeys: the keys of any slots, f32 or of codes, as they were stored", async () => {
    const b = backend();
    const kinds: (KvCodes | undefined)[] = [undefined, { bits: 8 }, { bits: 2, kivi: { residual: 20, rows: 70 } }];
    for (const codes of kinds) {
      const layer = { heads: 2, key: 20, value: 8 };
      using cache = b.createKvCache({ layers: [layer, layer], slots: 80, codes });
      const keys = normals(3, 71 * 40);
      for (const [start, rows] of [
        [0, 70],
        [70, 1],
      ]) {
        const [k, v] = [upload(b, rows, 40, keys.subarray(start * 40, (start + rows) * 40)), b.allocate(rows, 16)];
        b.write(v, new Float32Array(rows * 16));
        b.appendKv(cache, 1, k, v, start);
        for (const activation of [k, v]) b.release(activation);
      }
      b.takeCounters();
      for (const [start, rows] of [
        [0, 71],
        [30, 13],
        [70, 1],
      ]) {
        // Into the middle of something larger.
        const whole = b.allocate(rows + 2, 48);
        b.readKeys(whole.rowRange(1, rows).columns(4, 40), cache, 1, start);
        const read = await b.read(whole.rowRange(1, rows).columns(4, 40));
        b.release(whole);
        // A step of 2 bits is a third of the range of a channel, one of 8 a 255th of that of a key.
        const most = codes?.bits === 2 ? 1.5 : 0.02;
        const allowed = (slot: number) => {
          const coded = codes !== undefined && (codes.kivi === undefined || slot < 32);
          return coded ? most : 0;
        };
        const wrong = read.findIndex(
          (value, i) => !(Math.abs(value - keys[start * 40 + i]) <= allowed(start + Math.floor(i / 40))),
        );
        expect(wrong, `${JSON.stringify(codes)}, ${rows} from ${start}`).toBe(-1);
      }
      if (codes === undefined) expect(b.takeCounters().kvBytesRead).toBe((71 + 13 + 1) * 40 * 4);
    }
  });

  it("poolRows: mean, least and largest of groups of rows, the last one shorter", async () => {
    const b = backend();
    for (const [rows, cols, every] of [
      [1, 4, 16],
      [37, 20, 16],
      [64, 132, 8],
      [5, 8, 1],
    ]) {
      const values = normals(rows, rows * cols);
      const x = upload(b, rows, cols, values);
      const groups = Math.ceil(rows / every);
      for (const pool of Object.keys(pools) as PoolOptions["pool"][]) {
        const out = b.allocate(groups, cols);
        b.poolRows(out, x, { pool, every });
        const pooled = await b.read(out);
        b.release(out);
        const wanted = Float64Array.from({ length: groups * cols }, (_, i) => {
          const [group, c] = [Math.floor(i / cols), i % cols];
          const count = Math.min(every, rows - group * every);
          return pools[pool](Array.from({ length: count }, (_, r) => values[(group * every + r) * cols + c]));
        });
        const bounds = wanted.map((value) => (pool === "mean" ? tolerances.elementwise * (1 + Math.abs(value)) : 0));
        expectWithin(pooled, { values: wanted, bounds }, `${pool} of ${every} of [${rows}, ${cols}]`);
      }
      b.release(x);
    }
  });

  it("headScores: every query head with its key head, row by row and along antidiagonals, added to what was there", async () => {
    const b = backend();
    for (const [i, { queryHeads, kvHeads, key }] of shapes.entries()) {
      for (const [rows, keys, stride] of [
        [1, 1, 1],
        [1, 70, 1],
        [19, 33, 1],
        [19, 33, 8],
        [16, 40, 4],
        [3, 5, 16],
      ]) {
        const [qs, ks] = [normals(i, rows * queryHeads * key), normals(i + 5, keys * kvHeads * key)];
        const [q, k] = [upload(b, rows, queryHeads * key, qs), upload(b, keys, kvHeads * key, ks)];
        const [outRows, groups] = [Math.ceil(rows / stride), Math.ceil(keys / stride)];
        const room = Math.ceil(groups / 4) * 4;
        const out = b.allocate(outRows, queryHeads * room);
        b.headScores(out, q, k, { queryHeads, kvHeads, scale: 0.5, stride });
        b.headScores(out, q, k, { queryHeads, kvHeads, scale: -2, stride, accumulate: true });
        const read = await b.read(out);
        const expected = scores(qs, ks, { queryHeads, kvHeads, key, rows, keys, stride }, tolerances.attention);
        const actual = expected.values.map((_, n) => {
          const [row, rest] = [Math.floor(n / (queryHeads * groups)), n % (queryHeads * groups)];
          return read[(row * queryHeads + Math.floor(rest / groups)) * room + (rest % groups)];
        });
        expectWithin(Float32Array.from(actual), expected, `${rows} rows, ${keys} keys of ${key}, by ${stride}`);
        for (const activation of [q, k, out]) b.release(activation);
      }
    }
  });

  it("headScores counts the keys that 16 rows read together", () => {
    const b = backend();
    const [q, k, out] = [b.allocate(40, 8), b.allocate(12, 4), b.allocate(40, 24)];
    b.write(q, new Float32Array(320));
    b.write(k, new Float32Array(48));
    b.takeCounters();
    b.headScores(out, q, k, { queryHeads: 2, kvHeads: 1, scale: 1 });
    expect(b.takeCounters().kvBytesRead).toBe(3 * 12 * 4 * 4);
    for (const activation of [q, k, out]) b.release(activation);
  });
}

/** See `Backend.morphemeScores`, against the sums that its docstring says. */
export function morphemeSuite(backend: () => Backend, tolerances: Tolerances): void {
  it("morphemeScores: sums over all digits, of one to four morphemes, scaled, added to what was there, into views", async () => {
    const b = backend();
    for (const [rows, cols, order, morphemes, width, rank] of [
      [1, 8, 1, 5, 4, 3],
      [3, 20, 2, 7, 8, 2],
      [2, 132, 3, 11, 4, 3],
      [5, 12, 3, 4, 8, 1],
      [1, 4, 4, 3, 4, 2],
    ]) {
      const run = width ** (order - 1);
      const room = Math.ceil((rank * morphemes * run) / 4) * 4;
      const [xs, table, scale] = [normals(1, rows * room), normals(2, rank * morphemes * width), normals(3, cols)];
      const index = Float32Array.from({ length: cols * order }, (_, i) => (i * 5 + Math.floor(i / 3)) % morphemes);
      const [x, wide] = [upload(b, rows, room, xs), b.allocate(rows, cols + 8)];
      const out = wide.columns(4, cols);
      const [held, places, scales] = [table, index, scale].map((values) => b.loadVector(values));
      const options = { order, morphemes, width, rank };
      b.takeCounters();
      b.morphemeScores(out, x, held, places, options);
      expect(b.takeCounters().weightBytesRead).toBe(4 * (table.length + index.length));
      b.morphemeScores(out, x, held, places, { ...options, scale: scales, accumulate: true });
      expect(b.takeCounters().weightBytesRead).toBe(4 * (table.length + index.length + cols));
      const [values, bounds] = [new Float64Array(rows * cols), new Float64Array(rows * cols)];
      for (const [at] of values.entries()) {
        const [r, i] = [Math.floor(at / cols), at % cols];
        const of = index.subarray(i * order, (i + 1) * order);
        let size = 0;
        for (let k = 0; k < rank; k++) {
          for (let p = 0; p < run; p++) {
            const digits = Array.from(
              { length: order - 1 },
              (_, j) => Math.floor(p / width ** (order - 2 - j)) % width,
            );
            const product = digits.reduce(
              (all, digit, j) => all * table[(k * morphemes + of[j]) * width + digit],
              xs[r * room + (k * morphemes + of[order - 1]) * run + p],
            );
            values[at] += product;
            size += Math.abs(product);
          }
        }
        values[at] *= 1 + scale[i];
        bounds[at] = tolerances.elementwise * (1 + size * (1 + Math.abs(scale[i])));
      }
      expectWithin(
        await b.read(out),
        { values, bounds },
        `${rows} rows, ${cols} of ${order} × ${width}, ${rank} terms`,
      );
      b.release(x);
      b.release(wide);
    }
    const [x, out, table] = [b.allocate(1, 8), b.allocate(1, 4), b.loadVector(new Float32Array(8))];
    const wrong = (index: number, options: Partial<MorphemeScoreOptions>) => () =>
      b.morphemeScores(out, x, table, b.loadVector(new Float32Array(index)), {
        ...{ order: 1, morphemes: 2, width: 4, rank: 1 },
        ...options,
      });
    expect(wrong(3, {})).toThrow(/3 morphemes for 4 rows of 1/);
    expect(wrong(4, { rank: 2 })).toThrow(/a table of 8 numbers/);
    expect(wrong(8, { order: 2, width: 2, morphemes: 4 })).toThrow(/only multiples of 4/);
    expect(wrong(12, { order: 3 })).toThrow(/1 rows of 8 columns, of 32, into 1/);
    for (const activation of [x, out]) b.release(activation);
  });
}

/** −1.5 times the scores, [rows, heads, groups], with bounds. */
function scores(
  q: Float32Array,
  k: Float32Array,
  shape: { queryHeads: number; kvHeads: number; key: number; rows: number; keys: number; stride: number },
  tolerance: number,
): Expected {
  const { queryHeads, kvHeads, key, rows, keys, stride } = shape;
  const [outRows, groups] = [Math.ceil(rows / stride), Math.ceil(keys / stride)];
  const values = new Float64Array(outRows * queryHeads * groups);
  const bounds = new Float64Array(values.length);
  for (let n = 0; n < values.length; n++) {
    const [row, head, group] = [Math.floor(n / groups / queryHeads), Math.floor(n / groups) % queryHeads, n % groups];
    let [sum, size] = [0, 0];
    for (let i = row * stride; i < Math.min(rows, (row + 1) * stride); i++) {
      // Positions within their groups add up to stride − 1.
      const j = group * stride + stride - 1 - (i - row * stride);
      if (j >= keys) continue;
      for (let d = 0; d < key; d++) {
        const product =
          q[(i * queryHeads + head) * key + d] * k[(j * kvHeads + Math.floor((head * kvHeads) / queryHeads)) * key + d];
        sum += product;
        size += Math.abs(product);
      }
    }
    values[n] = -1.5 * sum;
    bounds[n] = 2.5 * tolerance * size + 1e-6;
  }
  return { values, bounds };
}

import { expect, it } from "vitest";
import { UsageError } from "../../src/core/index.js";
import { type Backend, keyBlocks, type RowSource } from "../../src/kernels/index.js";
import { wholeHeads } from "../../src/kernels/internal.js";
import { isSparse } from "../../src/pack/index.js";
import { fromFloat32, toFloat32 } from "../../src/tensor/index.js";
import { type BackendUnderTest, kvSpec, loadStack, normals, packed, rowSource, thinned, upload } from "./harness.js";

export function storageSuite(backend: () => Backend, subject: BackendUnderTest): void {
  it("write and read: whole activations and views of views, exactly; written values may be reused at once", async () => {
    const b = backend();
    const values = normals(1, 7 * 40);
    const whole = b.allocate(7, 40);
    const passed = values.slice();
    b.write(whole, passed);
    passed.fill(0);
    expect(await b.read(whole)).toEqual(values);
    const view = whole.columns(8, 24).rowRange(2, 4).columns(4, 12).rowRange(1, 2);
    expect([view.rows, view.cols]).toEqual([2, 12]);
    const expected = [3, 4].flatMap((r) => [...values.subarray(r * 40 + 12, r * 40 + 24)]);
    expect([...(await b.read(view))]).toEqual(expected);
    b.write(view, new Float32Array(24).fill(9));
    const after = await b.read(whole);
    for (const [k, v] of after.entries()) {
      const [r, c] = [Math.floor(k / 40), k % 40];
      expect(v).toBe(r >= 3 && r < 5 && c >= 12 && c < 24 ? 9 : values[k]);
    }
    b.release(whole);
  });

  it("operations run in the order in which they were enqueued; their arguments may be reused at once", async () => {
    const b = backend();
    const table = await loadStack(b, "f32", [8], 4, 2);
    const x = b.allocate(1, 4);
    const y = b.allocate(1, 4);
    const ids = Uint32Array.of(5);
    b.embed(x, table.handle, ids);
    ids[0] = 1;
    b.write(y, Float32Array.of(1, 2, 3, 4));
    b.add(x, y);
    b.write(y, Float32Array.of(10, 20, 30, 40));
    b.add(x, y);
    const expected = table.values.slice(20, 24).map((v, i) => Math.fround(v + i + 1) + 10 * (i + 1));
    expect(await b.read(x)).toEqual(expected);
    b.release(x);
    b.release(y);
  });

  for (const format of subject.formats) {
    const times = isSparse(format) ? "once or twice" : "once";
    it(`loadMatrix ${format}: F32, F16 and BF16 sources, every row read ${times}`, async () => {
      const b = backend();
      const [rows, cols] = [100, 36];
      const values = thinned(format, normals(3, rows * cols), cols, 3);
      for (const dtype of ["F32", "F16", "BF16"] as const) {
        const source = rowSource("w", values, rows, cols, dtype);
        const reads = new Uint8Array(rows);
        const counting: RowSource = {
          ...source,
          read: async (start, count, into) => {
            for (let r = start; r < start + count; r++) reads[r]++;
            await source.read(start, count, into);
          },
        };
        const w = await b.loadMatrix([counting], format);
        const [count, ...others] = new Set(reads);
        expect(others).toEqual([]);
        expect([1, isSparse(format) ? 2 : 1]).toContain(count);
        expect([w.rows, w.cols, w.format]).toEqual([rows, cols, format]);
        const stored = toFloat32(dtype, fromFloat32(dtype, values));
        const expected = packed(format, stored, rows, cols);
        expect(w.byteLength).toBe(expected.bytes.byteLength);
        const out = b.allocate(rows, cols);
        b.embed(
          out,
          w,
          Uint32Array.from({ length: rows }, (_, r) => r),
        );
        expect(await b.read(out)).toEqual(expected.values);
        b.release(out);
      }
    });
  }

  it("loadMatrix: the parts of a stack lie one after another and keep their names", async () => {
    const w = await loadStack(backend(), "q8", [20, 64, 4], 36, 4);
    expect(w.handle.parts.map(({ name, rowStart, rows }) => ({ name, rowStart, rows }))).toEqual([
      { name: "part0", rowStart: 0, rows: 20 },
      { name: "part1", rowStart: 20, rows: 64 },
      { name: "part2", rowStart: 84, rows: 4 },
    ]);
  });

  it("loadMatrix: a failing source and an aborted signal reject with their own reasons", async () => {
    const b = backend();
    const reason = new Error("the disk is gone");
    const failing: RowSource = { ...rowSource("w", normals(1, 64), 8, 8), read: () => Promise.reject(reason) };
    await expect(b.loadMatrix([failing], "q8")).rejects.toBe(reason);
    const aborted = AbortSignal.abort(new Error("stop"));
    const source = rowSource("w", normals(1, 64), 8, 8);
    await expect(b.loadMatrix([source], "q8", { signal: aborted })).rejects.toThrow("stop");
    await loadStack(b, "q8", [8], 8);
  });

  it("memoryBytes: counts what is held; release and dispose give it back", async () => {
    const b = backend();
    const before = b.memoryBytes();
    const big = b.allocate(256, 1024);
    expect(b.memoryBytes() - before).toBeGreaterThanOrEqual(2 ** 20);
    b.release(big);
    expect(b.memoryBytes()).toBe(before);
    const cache = b.createKvCache(kvSpec(4, 2, 64, 256));
    expect(cache.byteLength).toBeGreaterThanOrEqual(2 * 4 * 256 * 2 * 64 * 2);
    cache[Symbol.dispose]();
    expect(b.memoryBytes()).toBe(before);
    const w = await loadStack(b, "bf16", [256], 256, 5);
    expect(b.memoryBytes() - before).toBeGreaterThanOrEqual(w.handle.byteLength);
  });

  it("allocate: released storage serves again, and live activations never overlap", async () => {
    const b = backend();
    const before = b.memoryBytes();
    const shapes = [4, 20, 36, 100, 64, 8, 300];
    let live = shapes.map((cols, i) => ({
      value: i,
      activation: upload(b, 3, cols, new Float32Array(3 * cols).fill(i)),
    }));
    for (let round = 0; round < 20; round++) {
      for (const { activation } of live.filter((_, i) => i % 2 === round % 2)) b.release(activation);
      live = live.filter((_, i) => i % 2 !== round % 2);
      for (const cols of shapes.slice(live.length)) {
        const value = 100 * round + cols;
        live.push({ value, activation: upload(b, 3, cols, new Float32Array(3 * cols).fill(value)) });
      }
      for (const { value, activation } of live) {
        expect(
          (await b.read(activation)).every((v) => v === value),
          `round ${round}`,
        ).toBe(true);
      }
    }
    for (const { activation } of live) b.release(activation);
    expect(b.memoryBytes()).toBe(before);
  });

  it("dispose: frees everything, may be repeated, and leaves other backends alone", async () => {
    const first = await (subject.createAlone ?? subject.create)();
    const w = await loadStack(first, "f32", [64], 64, 6);
    expect(first.memoryBytes()).toBeGreaterThanOrEqual(w.handle.byteLength);
    const x = upload(backend(), 1, 4, Float32Array.of(1, 2, 3, 4));
    first[Symbol.dispose]();
    first[Symbol.dispose]();
    expect(first.memoryBytes()).toBe(0);
    expect(() => first.allocate(1, 4)).toThrow(UsageError);
    expect([...(await backend().read(x))]).toEqual([1, 2, 3, 4]);
    backend().release(x);
  });

  it("operands that do not fit together are refused by name before anything runs", async () => {
    const b = backend();
    const w = (await loadStack(b, "f32", [8, 4], 20, 7)).handle;
    const single = (await loadStack(b, "f32", [8], 20, 8)).handle;
    const table = oneHeadTable(b);
    using cache = b.createKvCache(kvSpec(1, 1, 4, 4));
    const a = (rows: number, cols: number) => upload(b, rows, cols, new Float32Array(rows * cols));
    const [x, out] = [a(2, 20), a(2, 12)];
    const four = a(2, 4);
    const angles = new Float32Array(16);
    const short = b.loadVector(new Float32Array(3));
    const blocks = keyBlocks({ rows: 3, slots: 4, tableOfHead: [0] }, () => [[0, 3]]);
    using threeRows = b.loadSight(blocks);
    const refused: readonly [string, () => unknown][] = [
      ["allocate", () => b.allocate(1, 6)],
      ["allocate", () => b.allocate(0, 4)],
      ["columns", () => x.columns(2, 4)],
      ["columns", () => x.columns(16, 8)],
      ["rowRange", () => x.rowRange(1, 2)],
      ["write", () => b.write(x, new Float32Array(39))],
      ["linear", () => b.linear(out, out, w)],
      ["linear", () => b.linear(x, x, w)],
      ["linear", () => b.linear(out.rowRange(0, 1), x, w)],
      ["linear", () => b.linear(out, x, w, { bias: short })],
      ["linear", () => b.linear(out, x, w, { thresholds: [1] })],
      ["embed", () => b.embed(x, w, Uint32Array.of(0, 1))],
      ["embed", () => b.embed(x, single, Uint32Array.of(0, 8))],
      ["embed", () => b.embed(x, single, Uint32Array.of(0))],
      ["rmsNorm", () => b.rmsNorm(x, out, short, 1e-6)],
      ["rmsNorm", () => b.rmsNorm(x, x, short, 1e-6)],
      ["rope", () => b.rope(four, table, 7)],
      ["rope", () => b.rope(four, table, -1)],
      ["loadRope", () => b.loadRope(angles, angles, { ...wholeHeads(8), first: 5, width: 4 })],
      ["loadRope", () => b.loadRope(angles, angles, { ...wholeHeads(8), width: 5 })],
      ["loadRope", () => b.loadRope(angles, angles.subarray(1), wholeHeads(4))],
      ["appendKv", () => b.appendKv(cache, 1, four, four, 0)],
      ["appendKv", () => b.appendKv(cache, 0, four, four, 3)],
      ["appendKv", () => b.appendKv(cache, 0, four, x, 0)],
      ["attention", () => b.attention(four, four, cache, 0, { queryHeads: 1, scale: 1, start: 3 })],
      ["attention", () => b.attention(x, x, cache, 0, { queryHeads: 1, scale: 1, start: 0 })],
      ["attention", () => b.attention(four, four, cache, 0, { queryHeads: 1, scale: 1, start: 0, sight: threeRows })],
      ["createKvCache", () => b.createKvCache({ layers: [{ heads: 1, key: 6, value: 4 }], slots: 4 })],
      ["createKvCache", () => b.createKvCache({ layers: [], slots: 4 })],
      ["loadSight", () => b.loadSight({ kind: "causal", window: 0 })],
      ["loadSight", () => b.loadSight({ ...blocks, blocks: Uint32Array.of(1) })],
      ["loadSight", () => b.loadSight({ ...blocks, masks: Uint32Array.of(1) })],
      ["loadSight", () => b.loadSight({ ...blocks, first: Uint32Array.of(0, 2) })],
      ["copyKv", () => b.copyKv(cache, cache, 1)],
      [
        "moveKv",
        () => b.moveKv(cache, 0, { heads: Uint32Array.of(0), from: Uint32Array.of(4), to: Uint32Array.of(0) }),
      ],
      [
        "moveKv",
        () => b.moveKv(cache, 0, { heads: Uint32Array.of(1), from: Uint32Array.of(1), to: Uint32Array.of(0) }),
      ],
      [
        "moveKv",
        () => b.moveKv(cache, 0, { heads: Uint32Array.of(0), from: Uint32Array.of(1), to: new Uint32Array(0) }),
      ],
      ["gatedActivation", () => b.gatedActivation(four, x, x, "silu")],
      ["add", () => b.add(x, four)],
    ];
    for (const [op, call] of refused) {
      expect(call, `${op}: ${call}`).toThrow(UsageError);
      expect(call).toThrow(op);
    }
    await expect(async () => b.readMass(cache)).rejects.toThrow("readMass");
    await expect(async () => b.topK(four, 5)).rejects.toThrow(UsageError);
    await expect(async () => b.loadMatrix([], "f32")).rejects.toThrow(UsageError);
    const uneven = [rowSource("a", normals(1, 16), 4, 4), rowSource("b", normals(1, 32), 4, 8)];
    await expect(async () => b.loadMatrix(uneven, "f32")).rejects.toThrow("b has 8 columns");
    for (const activation of [x, out, four]) b.release(activation);
  });
}

function oneHeadTable(b: Backend) {
  return b.loadRope(new Float32Array(16).fill(1), new Float32Array(16), wholeHeads(4));
}

import { expect, it } from "vitest";
import type { Backend, InputChoice } from "../../src/kernels/index.js";
import { keptInputs } from "../../src/kernels/internal.js";
import { normals, upload } from "./harness.js";

/** Choosing inputs by their size within a row, against the definition; the exact one where nothing is added up. */
export function inputChoiceSuite(backend: () => Backend): void {
  async function kept(values: Float32Array, rows: number, choice: InputChoice): Promise<Float32Array> {
    const b = backend();
    const cols = values.length / rows;
    // Into the middle of something larger.
    const whole = b.allocate(rows + 2, cols + 8);
    b.write(whole, new Float32Array((rows + 2) * (cols + 8)).fill(7));
    const x = upload(b, rows, cols, values);
    const out = whole.rowRange(1, rows).columns(4, cols);
    b.keepLargest(out, x, choice);
    const result = await b.read(out);
    const around = await b.read(whole);
    expect(around.filter((value) => value === 7)).toHaveLength((rows + 2) * (cols + 8) - rows * cols);
    for (const held of [x, whole]) b.release(held);
    return result;
  }
  const wanted = (values: Float32Array, rows: number, choice: InputChoice) => {
    const cols = values.length / rows;
    return Float32Array.from(
      Array.from({ length: rows }, (_, r) => [...keptInputs(values.slice(r * cols, (r + 1) * cols), choice)]).flat(),
    );
  };

  it("keepLargest: exactly so many of a row or of every run, whatever ties", async () => {
    for (const [rows, cols] of [
      [3, 44],
      [1, 300],
    ]) {
      const plain = normals(rows * cols, rows * cols);
      const tied = plain.map((value) => Math.round(2 * value) / 2);
      const choices: InputChoice[] = [0, 1, Math.floor(cols / 3), cols + 5].map((count) => ({ count }));
      choices.push({ count: 3, of: 32 }, { count: 7, of: 10 });
      for (const choice of choices) {
        for (const values of [plain, tied]) {
          expect(await kept(values, rows, choice), JSON.stringify(choice)).toEqual(wanted(values, rows, choice));
        }
      }
    }
  });

  it("keepLargest: the fewest that make up a share of all magnitudes", async () => {
    // Sums of halves are exact in f32.
    const values = normals(9, 3 * 60).map((value) => Math.round(4 * value) / 2);
    values.fill(0, 120);
    for (const mass of [0, 0.25, 0.75, 1]) {
      expect(await kept(values, 3, { mass }), `${mass}`).toEqual(wanted(values, 3, { mass }));
    }
    // With other numbers a rounded sum decides, by one of the smallest at most.
    const plain = normals(10, 300);
    for (const mass of [0.3, 0.9]) {
      const [ours, defined] = [await kept(plain, 1, { mass }), wanted(plain, 1, { mass })];
      const count = (row: Float32Array) => row.filter((value) => value !== 0).length;
      expect(Math.abs(count(ours) - count(defined))).toBeLessThanOrEqual(1);
      expect(ours).toEqual(wanted(plain, 1, { count: count(ours) }));
    }
  });

  it("keepLargest: NaN and infinity are kept first, so that they show", async () => {
    const values = Float32Array.of(1, -2, Number.NaN, 3, Number.NEGATIVE_INFINITY, 0, -0, 0.5);
    expect(await kept(values, 1, { count: 2 })).toEqual(
      Float32Array.of(0, 0, Number.NaN, 0, Number.NEGATIVE_INFINITY, 0, 0, 0),
    );
    expect((await kept(values, 1, { mass: 0.5 }))[2]).toBeNaN();
    const infinite = Float32Array.of(1, Number.POSITIVE_INFINITY, 2, 3);
    expect((await kept(infinite, 1, { mass: 0.5 }))[1]).toBe(Number.POSITIVE_INFINITY);
  });

  it("keepLargest: what does not fit is refused", () => {
    const b = backend();
    const [x, narrow] = [b.allocate(2, 8), b.allocate(2, 4)];
    expect(() => b.keepLargest(narrow, x, { count: 1 })).toThrow(/keepLargest/);
    const out = b.allocate(2, 8);
    for (const choice of [{ count: -1 }, { count: 1.5 }, { count: 1, of: 0 }, { mass: 1.5 }, { mass: Number.NaN }]) {
      expect(() => b.keepLargest(out, x, choice)).toThrow(/keepLargest/);
    }
    for (const held of [x, narrow, out]) b.release(held);
  });
}

import fc from "fast-check";
import { expect, test } from "vitest";
import { keepLargestOfGroups } from "./groups.js";
import { transposableMask, transposablePatterns } from "./transposable.js";

const finite = fc.oneof(fc.float({ noNaN: true }), fc.constantFrom(0, -0, 1, -1));

test("every group keeps its largest, exactly as many, the first of equals", () => {
  fc.assert(
    fc.property(
      fc.constantFrom([2, 4], [1, 4], [4, 8], [3, 5]),
      fc.array(fc.array(finite, { minLength: 8, maxLength: 8 }), { minLength: 1, maxLength: 6 }),
      ([keep, group], rows) => {
        const weight = Float32Array.from(rows.flat().slice(0, Math.floor((rows.length * 8) / group) * group));
        const mask = new Uint8Array(weight.length);
        keepLargestOfGroups(weight, keep, group, mask);
        for (let start = 0; start < weight.length; start += group) {
          const order = Array.from({ length: group }, (_, i) => start + i).sort(
            (a, b) => Math.abs(weight[b]) - Math.abs(weight[a]) || a - b,
          );
          const wanted = new Set(order.slice(0, keep));
          for (let i = start; i < start + group; i++) expect(mask[i]).toBe(wanted.has(i) ? 1 : 0);
        }
      },
    ),
  );
});

test("there are 90 transposable patterns", () => {
  expect(new Set(transposablePatterns).size).toBe(90);
});

test("transposable masks are 2:4 both ways, and no such mask keeps more", () => {
  fc.assert(
    fc.property(fc.array(fc.float({ noNaN: true, min: -8, max: 8 }), { minLength: 32, maxLength: 32 }), (values) => {
      const weight = Float32Array.from(values);
      const mask = new Uint8Array(32);
      transposableMask(weight, [4, 8], mask);
      for (let r = 0; r < 4; r++) for (const c of [0, 4]) expect(sum(mask.subarray(r * 8 + c, r * 8 + c + 4))).toBe(2);
      for (let c = 0; c < 8; c++) expect(mask[c] + mask[8 + c] + mask[16 + c] + mask[24 + c]).toBe(2);
      for (const block of [0, 4]) {
        const at = (i: number) => (i >> 2) * 8 + block + (i & 3);
        const total = (keep: (i: number) => number) =>
          Array.from({ length: 16 }, (_, i) => keep(i) * Math.abs(weight[at(i)])).reduce((a, b) => a + b);
        const best = Math.max(...everyMask().map((bits) => total((i) => (bits >> i) & 1)));
        expect(total((i) => mask[at(i)])).toBeCloseTo(best, 5);
      }
    }),
    { numRuns: 20 },
  );
});

const sum = (values: Uint8Array) => values.reduce((a, b) => a + b, 0);

/** By brute force over all 16-bit masks. */
let found: number[] | undefined;
function everyMask(): number[] {
  found ??= Array.from({ length: 1 << 16 }, (_, bits) => bits).filter((bits) =>
    [0, 1, 2, 3].every((k) => {
      const row = [0, 1, 2, 3].filter((c) => (bits >> (4 * k + c)) & 1).length;
      const column = [0, 1, 2, 3].filter((r) => (bits >> (4 * r + k)) & 1).length;
      return row === 2 && column === 2;
    }),
  );
  return found;
}

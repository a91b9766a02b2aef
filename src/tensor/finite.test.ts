import fc from "fast-check";
import { expect, test } from "vitest";
import { fromFloat32 } from "./dtype.js";
import { firstNonFinite } from "./finite.js";

const largest = { F32: 3.4e38, BF16: 3.38e38, F16: 65504 };

test.each(["F32", "BF16", "F16"] as const)(
  "%s: the first NaN or infinity is found at any place and alignment, and nothing else",
  (dtype) => {
    const finite = fc.oneof(
      fc.constantFrom(0, -0, largest[dtype], -largest[dtype], 2 ** -24),
      fc.double({ min: -6e4, max: 6e4, noNaN: true }),
    );
    const wrong = fc.constantFrom(Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY);
    fc.assert(
      fc.property(
        fc.array(finite, { maxLength: 40 }),
        fc.array(fc.tuple(wrong, fc.nat(39)), { maxLength: 2 }),
        fc.nat(3),
        (numbers, wrongs, shift) => {
          const values = Float32Array.from(numbers);
          for (const [value, at] of wrongs) if (at < values.length) values[at] = value;
          const stored = fromFloat32(dtype, values);
          const moved = new Uint8Array(stored.byteLength + 4).subarray(shift, shift + stored.byteLength);
          moved.set(stored);
          expect(firstNonFinite(dtype, moved)).toBe(values.findIndex((value) => !Number.isFinite(value)));
        },
      ),
    );
  },
);

test("integers are finite, whatever their bits", () => {
  expect(firstNonFinite("U8", new Uint8Array(8).fill(255))).toBe(-1);
});

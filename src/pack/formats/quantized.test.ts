import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { bf16FromF32, f32FromBf16 } from "../../tensor/index.js";
import { q4, q8 } from "./quantized.js";

/** Weights on a grid of bf16-exact scales in groups of 32, and the scales. */
const onGrid = (zero: number) =>
  fc
    .record({ rows: fc.integer({ min: 1, max: 40 }), cols: fc.integer({ min: 1, max: 100 }), seed: fc.nat(1000) })
    .map(({ rows, cols, seed }) => {
      const groups = Math.ceil(cols / 32);
      const scales = Float32Array.from({ length: rows * groups }, (_, i) => 2 ** (((i + seed) % 9) - 6) * 1.25);
      const weights = Float32Array.from({ length: rows * cols }, (_, i) => {
        const code = ((i * 7919 + seed * 104729) % (2 * zero)) - zero;
        return code * scales[Math.floor(i / cols) * groups + Math.floor((i % cols) / 32)];
      });
      return { rows, cols, weights, scales };
    });

describe.each([
  ["q8", q8, 128],
  ["q4", q4, 8],
] as const)("%s", (_, format, zero) => {
  it("holds weights that lie on a grid exactly when it is told the scales", () => {
    fc.assert(
      fc.property(onGrid(zero), ({ rows, cols, weights, scales }) => {
        expect(format.unpack(format.pack(weights, rows, cols, scales), rows, cols)).toEqual(weights.map((w) => w + 0));
      }),
    );
  });

  it("holds the codes of a grid under other scales too, which are rounded to bf16", () => {
    const [rows, cols] = [33, 64];
    const scales = Float32Array.from({ length: rows * 2 }, (_, i) => 0.001 * 1.37 ** (i % 9));
    const codeAt = (i: number) => ((i * 7919) % (2 * zero)) - zero;
    const scaleAt = (i: number) => scales[Math.floor(i / 32)];
    const weights = Float32Array.from({ length: rows * cols }, (_, i) => codeAt(i) * scaleAt(i));
    const held = format.unpack(format.pack(weights, rows, cols, scales), rows, cols);
    const halves = scales.map((scale) => f32FromBf16(bf16FromF32(scale)));
    expect(held).toEqual(weights.map((_, i) => codeAt(i) * halves[Math.floor(i / 32)] + 0));
  });

  it("fits scales of its own where those given are no scales, or too small", () => {
    const weights = Float32Array.of(1, -0.5, 0.25, 3);
    for (const wrong of [0, -1, Number.NaN, Number.POSITIVE_INFINITY, 2 ** -130, 1e-3]) {
      expect(format.pack(weights, 2, 2, Float32Array.of(wrong, wrong)), `${wrong}`).toEqual(format.pack(weights, 2, 2));
    }
  });
});

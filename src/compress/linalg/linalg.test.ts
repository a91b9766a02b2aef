import { describe, expect, it } from "vitest";
import { Random } from "../../core/index.js";
import {
  addProductTransposed,
  choleskyInPlace,
  inverseDiagonal,
  inverseFactor,
  inverseHessian,
  inverseTransposedLower,
  multiplyTransposed,
  solveCholesky,
  view,
} from "./index.js";

const random = new Random(1);
const normals = (n: number) => Float64Array.from({ length: n }, () => random.normal());

/** Random symmetric positive definite [n, n]. */
function positiveDefinite(n: number): Float64Array {
  const a = normals(n * (n + 8));
  return multiplyTransposed(a, a, n, n, n + 8);
}

function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  expect(a.length).toBe(b.length);
  let largest = 0;
  for (let i = 0; i < a.length; i++) largest = Math.max(largest, Math.abs(a[i] - b[i]));
  return largest;
}

const identity = (n: number) => Float64Array.from({ length: n * n }, (_, i) => (i % (n + 1) === 0 ? 1 : 0));

describe("matrix products", () => {
  // Sizes around the register block (3), the column tile (96) and the depth tile (256).
  it.each([
    [1, 1, 1],
    [2, 5, 3],
    [7, 97, 257],
    [64, 100, 513],
  ])("a·bᵀ for %i × %i, depth %i equals the plain sums to 1e-12", (m, n, depth) => {
    const a = normals(m * depth);
    const b = normals(n * depth);
    const expected = new Float64Array(m * n);
    for (let i = 0; i < m; i++) {
      for (let j = 0; j < n; j++) {
        for (let k = 0; k < depth; k++) expected[i * n + j] += a[i * depth + k] * b[j * depth + k];
      }
    }
    expect(largestDifference(multiplyTransposed(a, b, m, n, depth), expected)).toBeLessThan(1e-12 * depth);
  });

  it("writes only its rectangle", () => {
    const out = new Float64Array(10 * 10).fill(7);
    const ones = new Float64Array(8).fill(1);
    addProductTransposed(2, view(ones, 2), view(ones, 2), view(out, 10, 3, 4), 4, 4, 2);
    for (let i = 0; i < 100; i++) {
      const inside = i >= 30 && i < 70 && i % 10 >= 4 && i % 10 < 8;
      expect(out[i]).toBe(inside ? 11 : 7);
    }
  });
});

describe("Cholesky", () => {
  it.each([1, 5, 48, 49, 130])("L·Lᵀ gives the matrix back, n = %i", (n) => {
    const a = positiveDefinite(n);
    const l = a.slice();
    expect(choleskyInPlace(l, n)).toBe(true);
    for (let i = 0; i < n; i++) l.fill(0, i * n + i + 1, (i + 1) * n);
    expect(largestDifference(multiplyTransposed(l, l, n, n, n), a)).toBeLessThan(1e-11 * n);
  });

  it("reports a matrix that is not positive definite", () => {
    expect(choleskyInPlace(Float64Array.of(1, 2, 2, 1), 2)).toBe(false);
    expect(choleskyInPlace(Float64Array.of(0), 1)).toBe(false);
    expect(choleskyInPlace(Float64Array.of(Number.NaN), 1)).toBe(false);
  });

  it.each([1, 7, 50, 121])("inverse of the factor, n = %i", (n) => {
    const l = positiveDefinite(n);
    choleskyInPlace(l, n);
    const inverseTransposed = inverseTransposedLower(l, n);
    for (let i = 0; i < n; i++) l.fill(0, i * n + i + 1, (i + 1) * n);
    // L · L⁻¹ = L · (L⁻ᵀ)ᵀ
    expect(largestDifference(multiplyTransposed(l, inverseTransposed, n, n, n), identity(n))).toBeLessThan(1e-10);
  });

  it("solves", () => {
    const n = 60;
    const a = positiveDefinite(n);
    const x = normals(n);
    const b = multiplyTransposed(x, a, 1, n, n);
    choleskyInPlace(a, n);
    solveCholesky(a, n, b);
    expect(largestDifference(b, x)).toBeLessThan(1e-8);
  });
});

describe("factor of the inverse Hessian", () => {
  const n = 101;
  const gram = positiveDefinite(n);
  const factor = inverseFactor(gram, n, 0.25, 0.01);
  const damped = gram.map((v, i) => v * 0.25 + (i % (n + 1) === 0 ? factor.damping : 0));

  it("is lower triangular and UᵀU is the inverse of the damped matrix", () => {
    for (let i = 0; i < n; i++) {
      for (let j = i + 1; j < n; j++) expect(factor.transposedU[i * n + j]).toBe(0);
    }
    const inverse = inverseHessian(factor, n);
    expect(largestDifference(multiplyTransposed(damped, inverse, n, n, n), identity(n))).toBeLessThan(1e-10);
    const diagonal = Float64Array.from({ length: n }, (_, i) => inverse[i * n + i]);
    expect(largestDifference(inverseDiagonal(factor, n), diagonal)).toBeLessThan(1e-12);
  });

  it("its rows are the inverses of the trailing blocks: U_ii² = [(H_{i:,i:})⁻¹]_00", () => {
    for (const i of [0, 50, 99, 100]) {
      const size = n - i;
      const trailing = new Float64Array(size * size);
      for (let a = 0; a < size; a++) {
        for (let b = 0; b < size; b++) trailing[a * size + b] = damped[(i + a) * n + i + b];
      }
      const unit = new Float64Array(size);
      unit[0] = 1;
      choleskyInPlace(trailing, size);
      solveCholesky(trailing, size, unit);
      expect(factor.transposedU[i * n + i] ** 2).toBeCloseTo(unit[0], 12);
    }
  });

  it("gives dead inputs curvature 1 and damps a singular matrix until it factors", () => {
    const singular = Float64Array.of(4, 4, 0, 4, 4, 0, 0, 0, 0);
    const { dead, damping, diagonal } = inverseFactor(singular, 3, 1, 0);
    expect([...dead]).toEqual([0, 0, 1]);
    expect(damping).toBeGreaterThan(0);
    expect(diagonal[2]).toBe(1 + damping);
  });

  it("refuses a matrix that is not finite or far from positive definite", () => {
    expect(() => inverseFactor(Float64Array.of(Number.NaN), 1, 1, 0.01)).toThrow(/not finite at input 0/);
    expect(() => inverseFactor(Float64Array.of(1, 9, 9, 1), 2, 1, 0.01)).toThrow(/not positive definite/);
  });
});

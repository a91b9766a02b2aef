import { describe, expect, it } from "vitest";
import { Random } from "../../core/index.js";
import { multiplyTransposed, svd, symmetricEigen, transposed } from "./index.js";

const random = new Random(2);
const normals = (n: number) => Float64Array.from({ length: n }, () => random.normal());
function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let largest = 0;
  for (let i = 0; i < a.length; i++) largest = Math.max(largest, Math.abs(a[i] - b[i]));
  return largest;
}
const identity = (n: number) => Float64Array.from({ length: n * n }, (_, i) => (i % (n + 1) === 0 ? 1 : 0));

/** Σ σ u vᵀ. */
function assembled({ singularValues, left, right }: ReturnType<typeof svd>, rows: number, cols: number) {
  const k = singularValues.length;
  const scaled = left.map((u, i) => u * singularValues[Math.floor(i / rows)]);
  return multiplyTransposed(transposed(scaled, k, rows), transposed(right, k, cols), rows, cols, k);
}

describe("symmetric eigenvalues", () => {
  it.each([1, 2, 3, 30, 97])("vectors are orthonormal and give the matrix back, n = %i", (n) => {
    const half = normals(n * n);
    const a = Float64Array.from(half, (v, i) => v + half[(i % n) * n + Math.floor(i / n)]);
    const { values, vectors } = symmetricEigen(a.slice(), n);
    const columns = transposed(vectors, n, n);
    expect(largestDifference(multiplyTransposed(vectors, vectors, n, n, n), identity(n))).toBeLessThan(1e-12);
    const scaled = columns.map((v, i) => v * values[i % n]);
    expect(largestDifference(multiplyTransposed(scaled, columns, n, n, n), a)).toBeLessThan(1e-11);
  });

  it("known values: second differences", () => {
    const n = 12;
    const a = new Float64Array(n * n);
    for (let i = 0; i < n; i++) {
      a[i * n + i] = 2;
      if (i > 0) a[i * n + i - 1] = a[(i - 1) * n + i] = -1;
    }
    const values = symmetricEigen(a, n).values.sort();
    values.forEach((v, i) => {
      expect(v).toBeCloseTo(2 - 2 * Math.cos(((i + 1) * Math.PI) / (n + 1)), 12);
    });
  });
});

describe("singular values", () => {
  it.each([
    [1, 1],
    [5, 3],
    [3, 5],
    [60, 60],
    [100, 41],
    [41, 100],
  ])("%i × %i: orthonormal vectors, descending values, the matrix to 1e-12", (rows, cols) => {
    const a = normals(rows * cols);
    const result = svd(a, rows, cols);
    const k = Math.min(rows, cols);
    const { left, right, singularValues } = result;
    expect(largestDifference(multiplyTransposed(left, left, k, k, rows), identity(k))).toBeLessThan(1e-12);
    expect(largestDifference(multiplyTransposed(right, right, k, k, cols), identity(k))).toBeLessThan(1e-12);
    for (let i = 1; i < k; i++) expect(singularValues[i]).toBeLessThanOrEqual(singularValues[i - 1]);
    expect(largestDifference(assembled(result, rows, cols), a)).toBeLessThan(1e-12);
  });

  it("small values keep their digits: 1 … 1e-10 to 1e-5 relative, where eigenvalues of aᵀa would lose them", () => {
    const n = 11;
    const u = svd(normals(n * n), n, n).left;
    const v = svd(normals(n * n), n, n).left;
    const scaled = u.map((x, i) => x * 10 ** -Math.floor(i / n));
    const a = multiplyTransposed(transposed(scaled, n, n), transposed(v, n, n), n, n, n);
    svd(a, n, n).singularValues.forEach((s, i) => {
      expect(Math.abs(s * 10 ** i - 1)).toBeLessThan(1e-5);
    });
  });

  it("a matrix without full rank, and of zeros", () => {
    const a = multiplyTransposed(normals(20 * 3), normals(9 * 3), 20, 9, 3);
    const result = svd(a, 20, 9);
    for (let i = 3; i < 9; i++) expect(result.singularValues[i]).toBeLessThan(1e-13);
    expect(largestDifference(assembled(result, 20, 9), a)).toBeLessThan(1e-12);
    expect([...svd(new Float64Array(12), 4, 3).singularValues]).toEqual([0, 0, 0]);
  });
});

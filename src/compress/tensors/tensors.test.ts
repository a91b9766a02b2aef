import { describe, expect, it } from "vitest";
import { Random } from "../../core/index.js";
import { type FactorParts, type Factors, factorBytes, factorParameters } from "../../tensor/index.js";
import {
  type ChainStep,
  chainProblem,
  factorChain,
  factorMatrix,
  factorPartShapes,
  factorProblems,
} from "../../tensor/internal.js";
import { svd } from "../linalg/index.js";
import { interleaved, kroneckerOf, productFactorsOf, tensorTrainOf, tuckerOf, word2ketOf } from "./fit.js";
import { tensorMethods } from "./methods.js";
import { segment } from "./segment.js";

const normals = (seed: number, length: number): Float32Array => {
  const random = new Random(seed);
  return Float32Array.from({ length }, () => random.normal());
};
const shape = { rows: 24, cols: 32 };
const modes = { rowModes: [4, 6], colModes: [8, 4] };
const deep = { rowModes: [4, 2, 3], colModes: [4, 2, 4] };
const weight = normals(1, shape.rows * shape.cols);
const squared = (a: ArrayLike<number>, b?: ArrayLike<number>): number => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] - (b?.[i] ?? 0)) ** 2;
  return sum;
};
const errorOf = ({ factors, parts }: { factors: Factors; parts: FactorParts }) =>
  squared(factorMatrix(factors, shape, parts), weight);
const filled = (factors: Factors, of = shape): FactorParts =>
  Object.fromEntries(
    Object.entries(factorPartShapes(factors, of)).map(([name, part], i) => {
      const length = part.shape.reduce((all, size) => all * size, 1);
      const values = normals(i + 5, length);
      return [
        name,
        part.below === undefined ? values : Uint32Array.from(values, (v) => Math.abs(v * 1e6) % part.below!),
      ];
    }),
  );

/** As the contract of `ChainStep` says, in f64. */
function runChain(steps: readonly ChainStep[], x: ArrayLike<number>): Float64Array {
  let now = Float64Array.from(x);
  for (const { rows, cols, values, turned, run } of steps) {
    const groups = now.length / cols;
    const made = new Float64Array(groups * rows);
    for (let g = 0; g < groups; g++) {
      for (let r = 0; r < rows; r++)
        for (let c = 0; c < cols; c++) made[g * rows + r] += values[r * cols + c] * now[g * cols + c];
    }
    const lead = made.length / (turned * run);
    now = new Float64Array(made.length);
    for (let a = 0; a < lead; a++) {
      for (let t = 0; t < turned; t++)
        for (let k = 0; k < run; k++) now[(t * lead + a) * run + k] = made[(a * turned + t) * run + k];
    }
  }
  return now;
}

describe("TT-SVD, against f64", () => {
  it.each([
    [modes, [6]],
    [deep, [7, 5]],
    [deep, [16, 12]],
  ])("%j cut at %j: the error is between the best of one unfolding and the sum of what was left out", (cut, limits) => {
    const fitted = tensorTrainOf(weight, shape, cut, limits);
    const error = errorOf(fitted);
    expect(error).toBeLessThanOrEqual(fitted.discarded * (1 + 1e-5) + 1e-6);
    const sizes = cut.rowModes.map((mode, k) => mode * cut.colModes[k]);
    const tensor = interleaved(weight, shape, cut);
    let bound = 0;
    for (const [k, limit] of limits.entries()) {
      const rows = sizes.slice(0, k + 1).reduce((a, b) => a * b);
      const best = squared(svd(tensor, rows, tensor.length / rows).singularValues.slice(limit));
      expect(error).toBeGreaterThanOrEqual(best * (1 - 1e-5));
      bound += best;
    }
    // Oseledets 2011, theorem 2.2.
    expect(error).toBeLessThanOrEqual(bound * (1 + 1e-5) + 1e-6);
  });

  it("is exact at full ranks, and of two modes an SVD of the rearranged matrix", () => {
    expect(errorOf(tensorTrainOf(weight, shape, deep, []))).toBeLessThan(1e-8 * squared(weight));
    const fitted = tensorTrainOf(weight, shape, modes, [6]);
    const tail = squared(svd(interleaved(weight, shape, modes), 32, 24).singularValues.slice(6));
    expect(errorOf(fitted) / tail).toBeCloseTo(1, 4);
  });

  it("keeps to a tolerance with the smallest ranks in fours, and gives a matrix of low rank back exactly", () => {
    const { factors, discarded } = tensorTrainOf(weight, shape, deep, [], 0.3);
    expect(discarded).toBeLessThanOrEqual(0.09 * squared(weight));
    expect(factors).toMatchObject({ ranks: [expect.any(Number), expect.any(Number)] });
    const train: Factors = { kind: "tensor-train", ...deep, ranks: [4, 4] };
    const known = factorMatrix(train, shape, filled(train));
    const again = tensorTrainOf(known, shape, deep, [], 1e-5);
    expect(again.factors).toMatchObject({ ranks: [4, 4] });
    expect(squared(factorMatrix(again.factors, shape, again.parts), known)).toBeLessThan(1e-9 * squared(known));
  });
});

it("Tucker: exact at full ranks, its error at most what was left out and what each axis alone must lose", () => {
  const full = { ...modes, rowRanks: [4, 6], colRanks: [8, 4] };
  expect(errorOf(tuckerOf(weight, shape, full))).toBeLessThan(1e-8 * squared(weight));
  const fitted = tuckerOf(weight, shape, { ...modes, rowRanks: [4, 4], colRanks: [4, 4] });
  const error = errorOf(fitted);
  // Projections one after the other: the squares add up.
  expect(error / fitted.discarded).toBeCloseTo(1, 4);
});

it("Kronecker sums and matrix factors lose exactly the spectrum that was left out; word2ket that of every row", () => {
  const tail = (values: ArrayLike<number>, rows: number, cols: number, rank: number) =>
    squared(svd(values, rows, cols).singularValues.slice(rank));
  expect(
    errorOf(kroneckerOf(weight, shape, modes, 5)) / tail(interleaved(weight, shape, modes), 32, 24, 5),
  ).toBeCloseTo(1, 4);
  expect(errorOf(productFactorsOf(weight, shape, 5)) / tail(weight, 24, 32, 5)).toBeCloseTo(1, 4);
  let rows = 0;
  for (let r = 0; r < shape.rows; r++) rows += tail(weight.subarray(r * 32, (r + 1) * 32), 8, 4, 2);
  expect(errorOf(word2ketOf(weight, shape, [8, 4], 2)) / rows).toBeCloseTo(1, 4);
});

const everyKind: Factors[] = [
  { kind: "product", rank: 4 },
  { kind: "tensor-train", ...modes, ranks: [5] },
  { kind: "tensor-train", ...deep, ranks: [3, 4] },
  { kind: "tensor-train", rowModes: [4, 5], colModes: [8, 4], ranks: [4], dense: { first: 8, rows: 4 } },
  { kind: "tucker", ...deep, rowRanks: [3, 2, 2], colRanks: [2, 2, 3] },
  { kind: "kronecker", ...modes, rank: 3 },
  { kind: "kronecker", ...deep, rank: 3 },
];

describe("every kind of factors", () => {
  it.each(everyKind)("$kind %#: the chain of small products is W·x, row for row what its rows say", (factors) => {
    expect(factorProblems(factors, shape)).toEqual([]);
    const parts = filled(factors);
    const dense = factors.kind === "tensor-train" ? factors.dense : undefined;
    const matrix = factorMatrix(factors, shape, parts);
    const x = normals(9, shape.cols);
    const chained = runChain(factorChain(factors, shape, parts)!, x);
    for (let r = 0; r < shape.rows; r++) {
      let sum = 0;
      for (let c = 0; c < shape.cols; c++) sum += matrix[r * shape.cols + c] * x[c];
      if (dense !== undefined && r >= dense.first && r < dense.first + dense.rows) continue;
      const at = dense !== undefined && r >= dense.first ? r - dense.rows : r;
      expect(Math.abs(chained[at] - sum)).toBeLessThan(1e-4 * (1 + Math.abs(sum)));
    }
  });

  it("entries of a train and of a Kronecker sum are what their definitions say", () => {
    const train: Factors = { kind: "tensor-train", ...modes, ranks: [2] };
    const parts = filled(train);
    const matrix = factorMatrix(train, shape, parts);
    const [a, b] = [parts["core.0"], parts["core.1"]];
    for (const [i, j] of [
      [0, 0],
      [13, 17],
      [23, 31],
    ]) {
      const [i1, i2, j1, j2] = [Math.floor(i / 6), i % 6, Math.floor(j / 4), j % 4];
      let sum = 0;
      for (let r = 0; r < 2; r++) sum += a[(i1 * 8 + j1) * 2 + r] * b[(r * 6 + i2) * 4 + j2];
      expect(matrix[i * 32 + j]).toBeCloseTo(sum, 5);
    }
  });

  it("rows of equal morphemes are equal, their order counts, and a norm makes mean and deviation", () => {
    const factors: Factors = { kind: "morphemes", order: 3, morphemes: 7, width: 4, rank: 2, norm: true };
    const of = { rows: 3, cols: 60 };
    const parts = { ...filled(factors, of), index: Uint32Array.of(1, 2, 3, 1, 2, 3, 3, 2, 1) };
    const rows = factorMatrix(factors, of, {
      ...parts,
      "norm.weight": new Float32Array(60).fill(1),
      "norm.bias": new Float32Array(60),
    });
    const row = (r: number) => rows.subarray(r * 60, (r + 1) * 60);
    expect(row(0)).toEqual(row(1));
    expect(squared(row(0), row(2))).toBeGreaterThan(1);
    expect(row(0).reduce((a, b) => a + b) / 60).toBeCloseTo(0, 5);
    expect(squared(row(0)) / 60).toBeCloseTo(1, 3);
    const plain = factorMatrix({ ...factors, norm: false }, of, parts);
    const { table }: FactorParts = parts;
    let sum = 0;
    // Column 17 has the digits 1, 0, 1 in base 4.
    for (let k = 0; k < 2; k++) sum += table[(k * 7 + 1) * 4 + 1] * table[(k * 7 + 2) * 4] * table[(k * 7 + 3) * 4 + 1];
    expect(plain[17]).toBeCloseTo(sum, 5);
  });

  it("counts parameters and bytes by formula", () => {
    const count = (factors: Factors, of: { rows: number; cols: number }) => [
      factorParameters(factors, of),
      factorBytes(factors, of, 2),
    ];
    const [m, n, r] = [[32, 44], [16, 32], 8];
    expect(count({ kind: "tensor-train", rowModes: m, colModes: n, ranks: [r] }, { rows: 1408, cols: 512 })).toEqual([
      32 * 16 * 8 + 8 * 44 * 32,
      2 * (32 * 16 * 8 + 8 * 44 * 32),
    ]);
    expect(
      count(
        { kind: "tucker", rowModes: m, colModes: n, rowRanks: [8, 12], colRanks: [4, 8] },
        { rows: 1408, cols: 512 },
      )[0],
    ).toBe(8 * 12 * 4 * 8 + 32 * 8 + 44 * 12 + 16 * 4 + 32 * 8);
    // The paper's: 30 000 words of 256 in 4 factors of 14 × 4.
    const xs = { kind: "kronecker", rowModes: [14, 14, 14, 14], colModes: [4, 4, 4, 4] } as const;
    expect(factorParameters({ ...xs, rank: 1 }, { rows: 30_000, cols: 256 })).toBe(224);
    expect(factorParameters({ ...xs, rank: 2 }, { rows: 30_000, cols: 256 })).toBe(448);
    expect(count({ kind: "word2ket", colModes: [16, 32], rank: 3 }, { rows: 100, cols: 512 })[0]).toBe(3 * 100 * 48);
    const morphemes = { kind: "morphemes", order: 3, morphemes: 5000, width: 8, rank: 7, norm: true } as const;
    expect(count(morphemes, { rows: 10_000, cols: 512 })).toEqual([
      7 * 5000 * 8 + 1024,
      2 * (7 * 5000 * 8 + 1024) + 4 * 30_000,
    ]);
  });

  it("names what does not fit", () => {
    const train: Factors = { kind: "tensor-train", rowModes: [4, 5], colModes: [8, 5], ranks: [] };
    expect(factorProblems(train, shape).join()).toMatch(
      /8 · 5 do not make 32.*4 · 5 do not reach 24.*0 ranks for 2 cores/,
    );
    expect(chainProblem({ kind: "tensor-train", rowModes: [3, 8], colModes: [8, 4], ranks: [5] }, shape)).toMatch(
      /3 × 40; only multiples of 4/,
    );
    expect(chainProblem({ kind: "word2ket", colModes: [8, 4], rank: 1 }, shape)).toMatch(/nothing can be multiplied/);
  });
});

/** 96 texts of eight stems with twelve endings. */
const pieces = Array.from({ length: 96 }, (_, i) => `${"abcdefgh"[i % 8]}st${"ijklmnopqrsu"[Math.floor(i / 8)]}`);

describe.each(Object.entries(tensorMethods))("method %s", (id, method) => {
  it("is filed under its id; what it plans fits, keeps to the budget, can be run, and is what it makes", () => {
    expect(method.id).toBe(id);
    const of = { rows: 96, cols: 64, pieces };
    const values = normals(3, 96 * 64);
    const options = method.options.parse({});
    const planned = method.plan(of, options, { keepRatio: 0.4 });
    expect(factorProblems(planned, of)).toEqual([]);
    expect(factorParameters(planned, of)).toBeLessThanOrEqual(0.4 * 96 * 64);
    expect(factorParameters(planned, of)).toBeGreaterThan(0.15 * 96 * 64);
    if (id !== "word2ket") expect(chainProblem(planned, of)).toBeUndefined();
    const { factors, parts } = method.fit(values, of, planned, undefined, options);
    expect(factorParameters(factors, of)).toBe(factorParameters(planned, of));
    const error = squared(factorMatrix(factors, of, parts), values) / squared(values);
    expect(error).toBeGreaterThan(0.1);
    expect(error).toBeLessThan(0.85);
  });
});

describe("morphemes", () => {
  const { options, plan, fit: fitted } = tensorMethods.morphte;

  it("tokens are cut into pieces that others share, rows without a token and given cuts as said", () => {
    const { morphemes, index } = segment([...pieces, undefined, "xyz", ""], 3, { xyz: ["x", "yz"] });
    const cut = (row: number) => Array.from(index.subarray(row * 3, row * 3 + 3), (m) => morphemes[m]);
    // Eight stems and twelve endings: twenty pieces make them all, and what is found is not far from that.
    for (const [row, piece] of pieces.entries()) {
      const own = cut(row).filter((morpheme) => !morpheme.startsWith("␀"));
      expect(own.join("")).toBe(piece);
    }
    const used = new Set(pieces.flatMap((_, row) => cut(row)).filter((morpheme) => !morpheme.startsWith("␀")));
    expect(used.size).toBeLessThan(30);
    expect(cut(96)).toEqual(["␀0", "␀1", "␀2"]);
    expect(cut(97)).toEqual(["x", "yz", "␀2"]);
    expect(cut(98)).toEqual(cut(96));
    expect(() => segment(["xyz"], 2, { xyz: ["x", "y"] })).toThrow(/segments of "xyz"/);
    expect(() => segment(["xyz"], 2, { xyz: ["x", "y", "z"] })).toThrow(/at most 2/);
  });

  it("finds the table of a matrix that morphemes make, and with more sweeps never loses more", () => {
    const of = { rows: 96, cols: 64, pieces };
    const settings = { ...(options.parse({ sweeps: 60, order: 2 }) as object) };
    const planned = plan(of, settings, { rank: 2 });
    const { index } = segment(pieces, 2);
    const known = { ...filled(planned, of), index };
    const values = factorMatrix(planned, of, known);
    const lost = (sweeps: number) => {
      const { factors, parts } = fitted(values, of, planned, undefined, { ...settings, sweeps });
      return squared(factorMatrix(factors, of, parts), values) / squared(values);
    };
    const errors = [1, 2, 4, 8, 60].map(lost);
    for (const [i, error] of errors.entries()) if (i > 0) expect(error).toBeLessThan(errors[i - 1] + 1e-4);
    expect(errors.at(-1)).toBeLessThan(0.01);
  });

  it("with a norm: mean and spread of every column, and sizes by formula", () => {
    const of = { rows: 96, cols: 60, pieces };
    const settings = options.parse({ norm: true, sweeps: 2 });
    const planned = plan(of, settings, { rank: 3 }) as Factors & { kind: "morphemes" };
    expect(factorParameters(planned, of)).toBe(3 * planned.morphemes * planned.width + 2 * 60);
    expect(planned.width).toBe(4);
    const values = normals(8, 96 * 60);
    const { factors, parts } = fitted(values, of, planned, undefined, settings);
    const made = factorMatrix(factors, of, parts);
    for (const c of [0, 59]) {
      const residual = Array.from({ length: 96 }, (_, r) => values[r * 60 + c] - made[r * 60 + c]);
      expect(residual.reduce((a, b) => a + b) / 96).toBeCloseTo(0, 5);
    }
    expect(squared(made, values)).toBeLessThan(squared(values));
  });

  it("needs texts of tokens, and a budget that one term keeps to", () => {
    const settings = options.parse({});
    expect(() => plan(shape, settings, { rank: 1 })).toThrow(/needs its tokenizer/);
    expect(() => plan({ rows: 96, cols: 64, pieces }, settings, { keepRatio: 0.01 })).toThrow(/with one term/);
    expect(chainProblem({ kind: "morphemes", order: 3, morphemes: 5, width: 6, rank: 1, norm: false }, shape)).toMatch(
      /multiples of 4/,
    );
  });
});

it("a hybrid train keeps the rows with the largest squares as they are", () => {
  const of = { rows: 48, cols: 32 };
  const values = normals(4, 48 * 32);
  for (let i = 20 * 32; i < 24 * 32; i++) values[i] *= 10;
  const options = tensorMethods.htt.options.parse({});
  const planned = tensorMethods.htt.plan(of, options, { keepRatio: 0.3 });
  const { factors, parts } = tensorMethods.htt.fit(values, of, planned, undefined, options);
  expect(factors).toMatchObject({ dense: { rows: 4, first: 20 } });
  expect(factorMatrix(factors, of, parts).slice(20 * 32, 24 * 32)).toEqual(values.slice(20 * 32, 24 * 32));
});

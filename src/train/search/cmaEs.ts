import { symmetricEigen } from "../../compress/internal.js";
import { clip, firstStep, normalPoint } from "./box.js";
import type { Candidate, Search } from "./contract.js";

/** Points of a generation. */
export const generationSize = (dimensions: number): number => 4 + Math.floor(3 * Math.log(dimensions));

/** The settings of the tutorial's table 1, with weights of the better half alone. */
function settingsOf(n: number) {
  const lambda = generationSize(n);
  const raw = Array.from({ length: Math.floor(lambda / 2) }, (_, i) => Math.log((lambda + 1) / 2) - Math.log(i + 1));
  const sum = raw.reduce((a, b) => a + b, 0);
  const weights = raw.map((w) => w / sum);
  const mass = 1 / weights.reduce((a, w) => a + w * w, 0);
  const stepRate = (mass + 2) / (n + mass + 5);
  const damping = 1 + 2 * Math.max(0, Math.sqrt((mass - 1) / (n + 1)) - 1) + stepRate;
  const pathRate = (4 + mass / n) / (n + 4 + (2 * mass) / n);
  const rankOne = 2 / ((n + 1.3) ** 2 + mass);
  const rankMu = Math.min(1 - rankOne, (2 * (mass - 2 + 1 / mass)) / ((n + 2) ** 2 + mass));
  /** Mean length of a standard normal vector. */
  const normalLength = Math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n * n));
  return { lambda, weights, mass, stepRate, damping, pathRate, rankOne, rankMu, normalLength };
}

/**
 * Points drawn from a normal distribution whose mean, step and covariance follow the better half of each generation. A point
 * outside of the bounds is looked at, and learnt from, where it meets them.
 */
export const search: Search = {
  id: "cma",
  title: "CMA-ES",
  paper: "Hansen 2016, arXiv:1604.00772",
  *points({ point: start }, { bound, random }) {
    const n = start.length;
    const own = settingsOf(n);
    let mean = start;
    let step = firstStep(bound);
    const covariance = new Float64Array(n * n);
    for (let i = 0; i < n; i++) covariance[i * n + i] = 1;
    const stepPath = new Float64Array(n);
    const path = new Float64Array(n);
    for (let generation = 1; ; generation++) {
      const { values, vectors } = symmetricEigen(covariance.slice(), n);
      const lengths = values.map((value) => Math.sqrt(Math.max(value, 1e-20)));
      const found: Candidate[] = [];
      for (let k = 0; k < own.lambda; k++) {
        const draw = normalPoint(n, random).map((z, i) => z * lengths[i]);
        const y = combined(draw, vectors, n);
        const point = clip(
          mean.map((m, i) => m + step * y[i]),
          bound,
        );
        found.push({ point, value: yield point });
      }
      found.sort((a, b) => a.value - b.value);
      const moves = own.weights.map((_, k) => found[k].point.map((x, i) => (x - mean[i]) / step));
      const move = new Float64Array(n);
      for (const [k, weight] of own.weights.entries()) for (let i = 0; i < n; i++) move[i] += weight * moves[k][i];
      mean = mean.map((m, i) => m + step * move[i]);

      // C^(−1/2)·move, as the step's path is measured in.
      const along = coordinates(move, vectors, n).map((x, i) => x / lengths[i]);
      const whitened = combined(along, vectors, n);
      const stepGain = Math.sqrt(own.stepRate * (2 - own.stepRate) * own.mass);
      for (let i = 0; i < n; i++) stepPath[i] = (1 - own.stepRate) * stepPath[i] + stepGain * whitened[i];
      const length = Math.hypot(...stepPath);
      const expected = own.normalLength * Math.sqrt(1 - (1 - own.stepRate) ** (2 * generation));
      const isShort = length < (1.4 + 2 / (n + 1)) * expected;
      const gain = isShort ? Math.sqrt(own.pathRate * (2 - own.pathRate) * own.mass) : 0;
      for (let i = 0; i < n; i++) path[i] = (1 - own.pathRate) * path[i] + gain * move[i];

      // What a path that was held still would take from the covariance is given back to it.
      const lost = isShort ? 0 : own.rankOne * own.pathRate * (2 - own.pathRate);
      const kept = 1 - own.rankOne - own.rankMu + lost;
      for (let i = 0; i < n; i++) {
        for (let j = 0; j < n; j++) {
          let sum = 0;
          for (const [k, weight] of own.weights.entries()) sum += weight * moves[k][i] * moves[k][j];
          covariance[i * n + j] = kept * covariance[i * n + j] + own.rankOne * path[i] * path[j] + own.rankMu * sum;
        }
      }
      // A step beyond the box only makes points that are clipped.
      step = Math.min(2 * bound, step * Math.exp((own.stepRate / own.damping) * (length / own.normalLength - 1)));
    }
  },
};

/** Σ xᵢ·(row i of `rows`). */
function combined(x: Float64Array, rows: Float64Array, n: number): Float64Array {
  const out = new Float64Array(n);
  for (let i = 0; i < n; i++) for (let c = 0; c < n; c++) out[c] += x[i] * rows[i * n + c];
  return out;
}

/** x · (row i of `rows`), for every i. */
function coordinates(x: Float64Array, rows: Float64Array, n: number): Float64Array {
  return Float64Array.from({ length: n }, (_, i) => {
    let sum = 0;
    for (let c = 0; c < n; c++) sum += x[c] * rows[i * n + c];
    return sum;
  });
}

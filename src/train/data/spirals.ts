import type { Random } from "../../core/index.js";
import type { Batch } from "../objective.js";
import { permutation } from "../seeds.js";

export interface Spirals {
  train: Batch;
  test: Batch;
}

/**
 * Two spirals of one turn: radius n/perClass, angle 2πn/perClass (second class: + π) plus normal noise; 80 % for training.
 * @param angleDeviation in radians. The study states 1, with which 11.6 % of the points cannot be told apart; its
 * accuracies need far less.
 */
export function spiralsData(random: Random, perClass = 1000, angleDeviation = 0.1): Spirals {
  const total = 2 * perClass;
  const points = new Float32Array(2 * total);
  for (let i = 0; i < total; i++) {
    const n = i % perClass;
    const angle = (2 * Math.PI * n) / perClass + (i < perClass ? 0 : Math.PI) + angleDeviation * random.normal();
    points[2 * i] = (n / perClass) * Math.sin(angle);
    points[2 * i + 1] = (n / perClass) * Math.cos(angle);
  }
  const order = permutation(random, total);
  const pick = (from: number, to: number): Batch => ({
    input: {
      shape: [to - from, 2],
      values: Float32Array.from({ length: 2 * (to - from) }, (_, k) => points[2 * order[from + (k >> 1)] + (k & 1)]),
    },
    label: { shape: [to - from], values: Int32Array.from(order.subarray(from, to), (i) => (i < perClass ? 0 : 1)) },
  });
  const trainSize = Math.round(0.8 * total);
  return { train: pick(0, trainSize), test: pick(trainSize, total) };
}

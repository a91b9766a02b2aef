import type { MorphemeScoreOptions } from "../backend.js";
import { morphemeRun } from "../morphemes.js";
import type { ReferenceActivation } from "./storage.js";

export function morphemeScores(
  out: ReferenceActivation,
  x: ReferenceActivation,
  table: Float32Array,
  index: Float32Array,
  options: Omit<MorphemeScoreOptions, "scale"> & { scale?: Float32Array },
): void {
  const { scale, order, morphemes, width, rank, accumulate = false } = options;
  const run = morphemeRun(options);
  for (let r = 0; r < out.rows; r++) {
    const [source, target] = [x.row(r), out.row(r)];
    for (let i = 0; i < out.cols; i++) {
      const of = index.subarray(i * order, (i + 1) * order);
      let sum = 0;
      for (let k = 0; k < rank; k++) {
        for (let p = 0; p < run; p++) {
          let product = source[(k * morphemes + of[order - 1]) * run + p];
          for (let j = order - 2, rest = p; j >= 0; j--) {
            product *= table[(k * morphemes + of[j]) * width + (rest % width)];
            rest = Math.floor(rest / width);
          }
          sum += product;
        }
      }
      target[i] = sum * (scale?.[i] ?? 1) + (accumulate ? target[i] : 0);
    }
  }
}

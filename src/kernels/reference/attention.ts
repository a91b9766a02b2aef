import type { AttentionOptions } from "../backend.js";
import type { ReferenceActivation, ReferenceKvCache } from "./storage.js";

export function appendKv(
  cache: ReferenceKvCache,
  layer: number,
  k: ReferenceActivation,
  v: ReferenceActivation,
  start: number,
): void {
  for (let r = 0; r < k.rows; r++) {
    cache.keys[layer].set(k.row(r), (start + r) * k.cols);
    cache.values[layer].set(v.row(r), (start + r) * v.cols);
  }
}

/** Softmax attention written out: scores of all visible positions, their maximum, the weighted mean of the values. */
export function attention(
  out: ReferenceActivation,
  q: ReferenceActivation,
  cache: ReferenceKvCache,
  layer: number,
  options: AttentionOptions,
): void {
  const { queryHeads, scale, start, softcap, window = Number.POSITIVE_INFINITY } = options;
  const { kvHeads, headDim } = cache.spec;
  const keys = cache.keys[layer];
  const values = cache.values[layer];
  const width = kvHeads * headDim;
  const queryHeadsPerKvHead = queryHeads / kvHeads;

  for (let r = 0; r < q.rows; r++) {
    const position = start + r;
    const first = Math.max(0, position - window + 1);
    for (let h = 0; h < queryHeads; h++) {
      const query = q.row(r).subarray(h * headDim, (h + 1) * headDim);
      const kvHead = Math.floor(h / queryHeadsPerKvHead) * headDim;

      const scores = new Float64Array(position - first + 1);
      for (let s = 0; s < scores.length; s++) {
        const key = (first + s) * width + kvHead;
        let score = 0;
        for (let i = 0; i < headDim; i++) score += query[i] * keys[key + i];
        scores[s] = softcap === undefined ? score * scale : softcap * Math.tanh((score * scale) / softcap);
      }
      const largest = scores.reduce((a, b) => Math.max(a, b));
      const weights = scores.map((score) => Math.exp(score - largest));
      const total = weights.reduce((a, b) => a + b);

      const mean = new Float64Array(headDim);
      for (let s = 0; s < scores.length; s++) {
        const value = (first + s) * width + kvHead;
        for (let i = 0; i < headDim; i++) mean[i] += (weights[s] / total) * values[value + i];
      }
      out.row(r).set(mean, h * headDim);
    }
  }
}

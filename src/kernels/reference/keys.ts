import type { HeadScoreOptions, PoolOptions } from "../backend.js";
import type { ReferenceActivation, ReferenceKvCache } from "./storage.js";

export function readKeys(out: ReferenceActivation, cache: ReferenceKvCache, layer: number, start: number): void {
  const { heads, key } = cache.spec.layers[layer];
  for (let r = 0; r < out.rows; r++) {
    for (let head = 0; head < heads; head++) out.row(r).set(cache.keys[layer].get(start + r, head), head * key);
  }
}

export function poolRows(out: ReferenceActivation, x: ReferenceActivation, { pool, every }: PoolOptions): void {
  for (let g = 0; g < out.rows; g++) {
    const rows = Array.from({ length: Math.min(every, x.rows - g * every) }, (_, r) => x.row(g * every + r));
    for (let c = 0; c < out.cols; c++) {
      const values = rows.map((row) => row[c]);
      if (pool === "mean") out.row(g)[c] = values.reduce((a, b) => a + b) / values.length;
      else out.row(g)[c] = pool === "least" ? Math.min(...values) : Math.max(...values);
    }
  }
}

export function headScores(
  out: ReferenceActivation,
  q: ReferenceActivation,
  k: ReferenceActivation,
  { queryHeads, kvHeads, scale, stride = 1, accumulate = false }: HeadScoreOptions,
): void {
  const width = k.cols / kvHeads;
  const room = out.cols / queryHeads;
  for (let a = 0; a < out.rows; a++) {
    const row = out.row(a);
    for (let h = 0; h < queryHeads; h++) {
      const keyAt = Math.floor((h * kvHeads) / queryHeads) * width;
      for (let b = 0; b * stride < k.rows; b++) {
        let sum = 0;
        for (let t = 0; t < stride; t++) {
          const [query, key] = [(a + 1) * stride - 1 - t, b * stride + t];
          if (query >= q.rows || key >= k.rows) continue;
          for (let i = 0; i < width; i++) sum += q.row(query)[h * width + i] * k.row(key)[keyAt + i];
        }
        const at = h * room + b;
        row[at] = scale * sum + (accumulate ? row[at] : 0);
      }
    }
  }
}

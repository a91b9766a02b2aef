import { ProblemsError, UsageError } from "../../core/index.js";
import type { Adapter, LoraPair } from "./adapter.js";

/** An adapter of pairs. */
export type LoraAdapter = Extract<Adapter, { kind: "lora" }>;

/**
 * One LoRA adapter of several: Â = Σ wᵢ·Aᵢ and B̂ = Σ wᵢ·Bᵢ in every module (LoraHub, arXiv:2307.13269). B̂·Â has cross terms: it is not
 * the sum of what each adds, and with one adapter it grows as w². Where scales differ, A and B take half each of the difference.
 * @param weights one for each adapter
 * @throws UsageError for numbers of weights, ProblemsError for adapters of other modules, shapes or ranks
 */
export function combineAdapters(adapters: readonly LoraAdapter[], weights: ArrayLike<number>): LoraAdapter {
  if (adapters.length === 0 || adapters.length !== weights.length) {
    throw new UsageError(`${weights.length} weights for ${adapters.length} adapters; give one for each`);
  }
  checkAlike(adapters);
  const [{ modules, base }] = adapters;
  // One config says the rank and scale of all modules.
  const [{ scale }] = modules.values();
  const combined = Array.from(modules, ([name, { rank, rows, cols }]): [string, LoraPair] => {
    const a = new Float64Array(rank * cols);
    const b = new Float64Array(rows * rank);
    for (const [i, { modules }] of adapters.entries()) {
      const pair = modules.get(name)!;
      const weight = weights[i] * Math.sqrt(pair.scale / scale);
      for (let k = 0; k < a.length; k++) a[k] += weight * pair.a[k];
      for (let k = 0; k < b.length; k++) b[k] += weight * pair.b[k];
    }
    return [name, { a: Float32Array.from(a), b: Float32Array.from(b), rank, rows, cols, scale }];
  });
  return { kind: "lora", modules: new Map(combined), ...(base !== undefined && { base }) };
}

/** @throws ProblemsError with all in which adapters differ from the first one */
function checkAlike([{ modules: first }, ...others]: readonly LoraAdapter[]): void {
  const problems: string[] = [];
  const sizes = ({ rank, rows, cols }: LoraPair) => `rank ${rank} for ${rows} × ${cols}`;
  const [{ rank }] = first.values();
  for (const [module, pair] of first) {
    if (pair.rank !== rank) problems.push(`${module}: rank ${pair.rank}, another module has ${rank}`);
  }
  for (const [i, { modules }] of others.entries()) {
    const name = `adapter ${i + 2}`;
    for (const [module, pair] of first) {
      const other = modules.get(module);
      if (other === undefined) problems.push(`${name}, ${module}: it has no pair, the first one has`);
      else if (sizes(other) !== sizes(pair)) {
        problems.push(`${name}, ${module}: ${sizes(other)}, the first one has ${sizes(pair)}`);
      }
    }
    for (const module of modules.keys()) {
      if (!first.has(module)) problems.push(`${name}, ${module}: the first one has no pair`);
    }
  }
  if (problems.length > 0) {
    throw new ProblemsError("only adapters of the same modules and of one rank add up to one", problems);
  }
}

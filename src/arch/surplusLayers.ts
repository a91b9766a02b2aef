import { tensorsOfBlock } from "./derive.js";
import type { ModelSpec } from "./spec.js";

/**
 * Layers that weights are stored of and the description has not, by what their tensors' names begin with: those that predict a
 * token further ahead (DeepSeek-V3), or the rest of a model whose config.json was cut short.
 */
export function surplusLayers({ blocks }: Pick<ModelSpec, "blocks">, names: Iterable<string>): string[] {
  const numbered = /^(.*?\.)\d+\./.exec(tensorsOfBlock(blocks[0])[0].tensor);
  if (numbered === null) return [];
  const [, stem] = numbered;
  const found = new Set<number>();
  for (const name of names) {
    const number = name.startsWith(stem) ? /^\d{1,9}(?=\.)/.exec(name.slice(stem.length)) : null;
    if (number !== null && Number(number[0]) >= blocks.length) found.add(Number(number[0]));
  }
  return [...found].sort((a, b) => a - b).map((layer) => `${stem}${layer}`);
}

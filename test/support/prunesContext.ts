import { findStep, parseModelConfig } from "../../src/arch/index.js";
import { withContextPruning } from "../../src/arch/internal.js";
import { Random } from "../../src/core/index.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";

/**
 * A golden checkpoint with layers that prune their context by random interactions: about half of what is far away goes.
 * @param bias above all interactions, so that everything stays; by default some are below
 */
export async function prunesContext(name: string, { rank = 8, bias = 1 } = {}): Promise<MemoryCheckpoint> {
  const checkpoint = await MemoryCheckpoint.golden(name);
  const config = withContextPruning(parseModelConfig(checkpoint.config, "config.json"), rank);
  const random = new Random(11);
  for (const block of config.spec.blocks) {
    const { query, key, bias: offset } = findStep(block, "attend")!.pruning!;
    for (const { weight, rows, cols } of [query, key]) {
      const deviation = 0.8 / Math.sqrt(cols);
      checkpoint.set(
        weight.tensor,
        [rows, cols],
        Float32Array.from({ length: rows * cols }, () => deviation * random.normal()),
      );
    }
    checkpoint.set(offset.tensor, [1], Float32Array.of(bias));
  }
  checkpoint.artifact = { rarefy: 2, blocks: [...config.blocks] };
  return checkpoint;
}

import { FormatError } from "../core/index.js";
import type { ModelConfig } from "./modelSizes.js";
import { linearMap, stored } from "./parts.js";
import type { AttendStep, BlockSpec, ContextPruning, LinearStep } from "./spec.js";

/**
 * A block whose attention prunes its context: what tells whether a position is still needed reads what queries are made of, and
 * lies beside the tensors of its attention.
 * @param rank columns of interaction queries and keys
 * @param layer for messages
 * @throws FormatError for a block whose positions cannot go one by one
 */
export function prunesContext(block: BlockSpec, rank: number, layer: number): BlockSpec {
  const attend = block.steps.find((step): step is AttendStep => step.do === "attend");
  const source = block.steps.find(
    (step): step is LinearStep => step.do === "linear" && step.maps.some(({ into }) => into === attend?.q),
  );
  if (rank % 4 !== 0 || !attend || !source || attend.sight.kind === "all" || attend.latent || block.gates)
    throw new FormatError({
      file: "rarefy.json",
      field: `blocks.${layer}.contextRank`,
      problem: `${rank} columns in a block of this kind`,
      expected: "a multiple of 4, and causal attention that keeps a key for each position, without gates",
    });
  const { map } = source.maps.find(({ into }) => into === attend.q)!;
  const { cols } = map;
  const module = map.weight.tensor.replace(/\.[^.]+\.weight$/, "");
  const pruning: ContextPruning = {
    of: source.of,
    query: linearMap("interaction_query", rank, cols, stored(`${module}.interaction_query`)),
    key: linearMap("interaction_key", rank, cols, stored(`${module}.interaction_key`)),
    bias: { tensor: `${module}.interaction_bias`, shape: [1] },
  };
  return { ...block, steps: block.steps.map((step) => (step === attend ? { ...attend, pruning } : step)) };
}

/** A model whose layers all prune their context; those that share their weights still do. @throws as `prunesContext` */
export function withContextPruning(config: ModelConfig, rank: number): ModelConfig {
  const made = new Map<BlockSpec, BlockSpec>();
  const blocks = config.spec.blocks.map((block, layer) => {
    const pruned = made.get(block) ?? prunesContext(block, rank, layer);
    made.set(block, pruned);
    return pruned;
  });
  const shapes = config.blocks.map((shape) => ({ ...shape, contextRank: rank }));
  return { ...config, spec: { ...config.spec, blocks }, blocks: shapes };
}

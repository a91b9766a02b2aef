import { FormatError } from "../core/index.js";
import { findStep, linearsOf } from "./derive.js";
import type { ModelConfig } from "./modelSizes.js";
import { linearMap, stored } from "./parts.js";
import type { BlockGates, BlockSpec, GateSpec, Step } from "./spec.js";

/** What of a block each gate lets a token through, by the word that chooses it. */
export const gatedParts: Readonly<Record<BlockGates["units"], readonly GateSpec["part"][]>> = {
  block: ["block"],
  attention: ["attention"],
  mlp: ["mlp"],
  sublayers: ["attention", "mlp"],
};

/** Added to the mean square of a token before its gate looks at it. */
export const gateEpsilon = 1e-6;

/**
 * A block through which a router lets tokens, or past it; its tensors lie beside those of the block.
 * @param layer for messages
 * @throws FormatError for a block that reads texts as a whole, that prunes its context, or whose parts cannot be told apart
 */
export function gatesBlock(
  block: BlockSpec,
  { units, kind }: BlockGates,
  hiddenSize: number,
  layer: number,
): BlockSpec {
  const { steps } = block;
  const attend = findStep(block, "attend");
  const middle = endOfAttention(steps);
  // What the MLP begins with tells whether it is made of what attention has left, or of what entered the block.
  const behind = steps[middle];
  const isApart = behind !== undefined && "of" in behind && behind.of === "x";
  // What convolutions over positions see must have been run of every token.
  const remembers = units !== "mlp" && findStep(block, "convolve") !== undefined;
  if (!attend || attend.sight.kind === "all" || attend.pruning || remembers || (units !== "block" && !isApart)) {
    throw new FormatError({
      file: "rarefy.json",
      field: `blocks.${layer}.gates`,
      problem: `"${units}" in a block of this kind`,
      expected: 'causal attention that keeps its context, and "block" where the MLP reads the norm of attention',
    });
  }
  // "model.layers.3." of "model.layers.3.self_attn.q_proj.weight"
  const prefix = linearsOf(block)[0].weight.tensor.replace(/[^.]+\.[^.]+\.[^.]+$/, "");
  const gates = gatedParts[units].map((part): GateSpec => {
    const name = part === "block" ? "layer_gate" : `${part}_gate`;
    const map = linearMap(name, 1, hiddenSize, stored(prefix + name, true));
    return { part, kind, map, from: part === "mlp" ? middle : 0, to: part === "attention" ? middle : steps.length };
  });
  return { ...block, gates };
}

/** A model whose layers all have gates; those that share their weights share them too. @throws as `gatesBlock` */
export function withLayerGates(config: ModelConfig, gates: BlockGates): ModelConfig {
  const made = new Map<BlockSpec, BlockSpec>();
  const blocks = config.spec.blocks.map((block, layer) => {
    const gated = made.get(block) ?? gatesBlock(block, gates, config.hiddenSize, layer);
    made.set(block, gated);
    return gated;
  });
  const shapes = config.blocks.map((shape) => ({ ...shape, gates }));
  return { ...config, spec: { ...config.spec, blocks }, blocks: shapes };
}

/** Weights of the maps that a gate lets a token through, or past: what a closed gate saves is measured by them. */
export function gatedWeights(block: BlockSpec, { from, to }: Pick<GateSpec, "from" | "to">): number {
  return linearsOf({ steps: block.steps.slice(from, to) }).reduce((sum, { rows, cols }) => sum + rows * cols, 0);
}

/** Steps up to the projection behind attention, and the addition of what that gives where it does not add by itself. */
export function endOfAttention(steps: readonly Step[]): number {
  const attended = steps.findIndex((step) => step.do === "attend");
  const projected = steps.findIndex(
    (step, s) => s > attended && (step.do === "linear" || step.do === "multiplicative"),
  );
  const projection = steps[projected];
  if (attended < 0 || (projection?.do !== "linear" && projection?.do !== "multiplicative")) return 0;
  if (projection.add) return projected + 1;
  const added = steps.findIndex((step, s) => s > projected && step.do === "add");
  return (added < 0 ? projected : added) + 1;
}

import * as z from "zod/mini";
import { FormatError, quote } from "../core/index.js";
import { checkSchema } from "../core/internal.js";
import { generationFields, isToken, listOf, lookUp } from "./configFields.js";
import { prunesContext } from "./contextPruning.js";
import { families } from "./families/index.js";
import { gatesBlock } from "./layerGates.js";
import type { BlockShape, BlockSpec, ModelSpec } from "./spec.js";

/**
 * The description of the model that a parsed `config.json` stands for. How weights are stored is not read here: each tensor
 * tells its own type.
 * @param raw parsed JSON
 * @param file for messages
 * @param generation parsed `generation_config.json`, whose `eos_token_id` wins over that of the config
 * @param shapes of rarefy.json, when the sizes of the blocks differ from those of the config
 * @throws FormatError naming the field
 */
export function readModelSpec(
  raw: unknown,
  file: string,
  generation?: unknown,
  shapes?: readonly BlockShape[],
): ModelSpec {
  const { model_type: modelType } = checkSchema(z.object({ model_type: z.string() }), raw, file);
  const family = lookUp(families, modelType);
  if (family === undefined) {
    throw new FormatError({
      file,
      field: "model_type",
      problem: `model type ${quote(modelType)} is not supported`,
      expected: listOf(families),
    });
  }
  const config = checkSchema(family.config, raw, file);
  if (shapes !== undefined) checkShapes(shapes, family.spec(config).blocks.length);
  const described = family.spec(config, shapes);
  const spec = {
    modelType,
    ...described,
    ...(shapes && { blocks: shareBlocks(trainedBlocks(described, shapes), shapes) }),
  };
  const eos = generation === undefined ? undefined : checkGeneration(generation);
  return eos === undefined ? spec : { ...spec, eosTokenIds: eos.filter((id) => isToken(id, spec.vocabSize)) };
}

const checkGeneration = (generation: unknown) =>
  checkSchema(generationFields, generation, "generation_config.json").eos_token_id;

/** Blocks with what training has given them. */
const trainedBlocks = (
  { blocks, hiddenSize }: Pick<ModelSpec, "blocks" | "hiddenSize">,
  shapes: readonly BlockShape[],
): BlockSpec[] =>
  blocks.map((block, layer) => {
    const { contextRank, gates } = shapes[layer];
    const pruned = contextRank === undefined ? block : prunesContext(block, contextRank, layer);
    return gates === undefined ? pruned : gatesBlock(pruned, gates, hiddenSize, layer);
  });

/** Blocks that share their weights are one description. @throws FormatError for those that are of different kinds */
function shareBlocks(blocks: readonly BlockSpec[], shapes: readonly BlockShape[]): BlockSpec[] {
  return blocks.map((block, layer) => {
    const { sharedWith } = shapes[layer];
    if (sharedWith === undefined) return block;
    const fail = (problem: string, expected: string) =>
      new FormatError({ file: "rarefy.json", field: `blocks.${layer}.sharedWith`, problem, expected });
    if (!(sharedWith < layer) || shapes[sharedWith].sharedWith !== undefined)
      throw fail(`layer ${sharedWith}`, "a layer before it that has weights of its own");
    if (kindOf(block) !== kindOf(blocks[sharedWith]))
      throw fail(`layer ${sharedWith} is of another kind or size`, "a layer that differs in its weights alone");
    return blocks[sharedWith];
  });
}

/** All of a block but the names of its tensors. */
const kindOf = (block: BlockSpec) => JSON.stringify(block, (key, value) => (key === "tensor" ? undefined : value));

function checkShapes(shapes: readonly BlockShape[], layers: number): void {
  const fail = (field: string, problem: string, expected: string) =>
    new FormatError({ file: "rarefy.json", field, problem, expected });
  if (shapes.length !== layers) throw fail("blocks", `${shapes.length} entries`, `${layers}, one per layer`);
  for (const [layer, { queryHeads, kvHeads }] of shapes.entries()) {
    if (queryHeads % kvHeads === 0) continue;
    throw fail(`blocks.${layer}.kvHeads`, `${kvHeads} for ${queryHeads} query heads`, "a divisor of queryHeads");
  }
}

import { UsageError } from "../../core/index.js";
import type { Model } from "../../model/index.js";
import { type KvChoice, parseKv } from "./index.js";

/** Whether some layer of a model was trained to let go of what it no longer needs. */
export const prunesContext = ({ config }: Pick<Model, "config">): boolean =>
  config.blocks.some(({ contextRank }) => contextRank !== undefined);

/**
 * What a sequence keeps: as asked for, else, where the model was trained to, what that finds needed.
 * @throws UsageError for what does not go with a model that prunes its context, and for `pruned` with another one
 */
export function keptOf(
  model: Model,
  { attention, kv, pages }: { attention?: { text: string }; kv?: KvChoice; pages?: object },
): KvChoice | undefined {
  if (!prunesContext(model)) {
    if (kv?.eviction?.trained !== true) return kv;
    throw new UsageError(
      `${kv.text}: this model was not trained to prune its context; rarefy finetune --context-pruning does`,
    );
  }
  const refuse = (what: string) => {
    throw new UsageError(`${what} does not go with a model that prunes its context by itself`);
  };
  if (attention !== undefined && attention.text !== "causal") refuse(`the attention pattern ${attention.text}`);
  if (pages !== undefined) refuse("a cache in pages");
  if (kv?.eviction !== undefined && !kv.eviction.trained) refuse(`the KV policy ${kv.text}`);
  return kv ?? parseKv("pruned");
}

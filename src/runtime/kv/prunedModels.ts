import { remembersTokens } from "../../arch/internal.js";
import { UsageError } from "../../core/index.js";
import type { Model } from "../../model/index.js";
import { type KvChoice, parseKv } from "./index.js";

/** Whether some layer of a model was trained to let go of what it no longer needs. */
export const prunesContext = ({ config }: Pick<Model, "config">): boolean =>
  config.blocks.some(({ contextRank }) => contextRank !== undefined);

/** Whether some layer lets tokens past its attention, so that they have no keys and values there. */
const gatesAttention = ({ config }: Pick<Model, "config">): boolean =>
  config.blocks.some(({ gates }) => gates?.kind === "hard" && gates.units !== "mlp");

/** Whether what a model was trained to do decides which tokens have a slot in a layer, so that slots are no positions. */
export const keepsItsOwnSlots = (model: Pick<Model, "config">): boolean =>
  prunesContext(model) || gatesAttention(model);

/** Whether nothing of what a text has run is shared with another one, or copied to it: it is more than keys and values of positions. */
export const keepsItsOwnCache = (model: Pick<Model, "config">): boolean =>
  keepsItsOwnSlots(model) || remembersTokens(model.config.spec);

/**
 * What a sequence keeps: as asked for, else, where the model was trained to, what that finds needed.
 * @throws UsageError for what does not go with a model that prunes its context, and for `pruned` with another one
 */
export function keptOf(
  model: Model,
  { attention, kv, pages }: { attention?: { text: string }; kv?: KvChoice; pages?: object },
): KvChoice | undefined {
  const prunes = prunesContext(model);
  if (!keepsItsOwnSlots(model)) {
    if (kv?.eviction?.trained !== true) return kv;
    throw new UsageError(
      `${kv.text}: this model was not trained to prune its context; rarefy finetune --context-pruning does`,
    );
  }
  const refuse = (what: string) => {
    const does = prunes ? "prunes its context by itself" : "lets tokens past attention";
    throw new UsageError(`${what} does not go with a model that ${does}`);
  };
  if (attention !== undefined && attention.text !== "causal") refuse(`the attention pattern ${attention.text}`);
  if (pages !== undefined) refuse("a cache in pages");
  if (kv?.eviction !== undefined && !(prunes && kv.eviction.trained)) refuse(`the KV policy ${kv.text}`);
  return kv ?? (prunes ? parseKv("pruned") : undefined);
}

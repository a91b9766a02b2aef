import * as z from "zod/mini";
import { fail, orElse, size } from "./configFields.js";

/** Over all layers. */
const maxExperts = 65536;

const count = size(4096);
/** Weight of the loss that balanced the load when a model was trained. */
export const balanceLoss = (fallback: number) => orElse(z.number().check(z.gte(0)), fallback);
export const expertsPerToken = (fallback: number) => orElse(count, fallback);

/** Spellings of the number of experts in a layer. Files that transformers wrote may have either of two. */
const spellings = {
  num_local_experts: z.nullish(count),
  num_experts: z.nullish(count),
  n_routed_experts: z.nullish(count),
};

/** The fields of a config that tell of its mixtures of experts. */
export const expertFields = (defaults: { perToken: number; balance: number }) => ({
  ...spellings,
  num_experts_per_tok: expertsPerToken(defaults.perToken),
  router_aux_loss_coef: balanceLoss(defaults.balance),
});

type Spelled = { [K in keyof typeof spellings]?: number | null };

/** A config with `experts`, the number of experts of a mixture. Their number is bounded by what there is. */
export function withExperts<T extends Spelled & { num_experts_per_tok: number; num_hidden_layers: number }>(
  fallback: number,
): (config: T, context: z.core.ParsePayload) => T & { experts: number } {
  return (config, context) => {
    const { num_local_experts, num_experts, n_routed_experts, num_experts_per_tok: perToken } = config;
    const given = { num_local_experts, num_experts, n_routed_experts };
    const [field, experts] = Object.entries(given).find(([, value]) => value != null) ?? ["num_experts", fallback];
    const { num_hidden_layers: layers } = config;
    if (experts! * layers > maxExperts) {
      fail(context, [field], `${experts} in each of ${layers} layers`, `at most ${maxExperts} in all`);
    }
    if (perToken > experts!) {
      fail(context, ["num_experts_per_tok"], `${perToken} of ${experts} experts`, "no more than there are");
    }
    return { ...config, experts: experts! };
  };
}

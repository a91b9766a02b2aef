import * as z from "zod";
import { fail, orElse, size } from "./configFields.js";

/** Over all layers. */
const maxExperts = 65536;

/** The fields of a config that tell of its mixtures of experts. */
export const expertFields = (defaults: { count: number; perToken: number; balance: number }) => ({
  num_local_experts: orElse(size(1024), defaults.count),
  num_experts_per_tok: orElse(size(1024), defaults.perToken),
  router_aux_loss_coef: orElse(z.number().min(0), defaults.balance),
});

export interface ExpertFields {
  num_local_experts: number;
  num_experts_per_tok: number;
  router_aux_loss_coef: number;
}

/** Their number is bounded by what there is. */
export function checkExperts(
  {
    num_local_experts: count,
    num_experts_per_tok: perToken,
    num_hidden_layers: layers,
  }: ExpertFields & { num_hidden_layers: number },
  context: z.RefinementCtx,
): void {
  if (count * layers > maxExperts) {
    fail(context, ["num_local_experts"], `${count} in each of ${layers} layers`, `at most ${maxExperts} in all`);
  }
  if (perToken > count) {
    fail(context, ["num_experts_per_tok"], `${perToken} of ${count} experts`, "no more than there are");
  }
}

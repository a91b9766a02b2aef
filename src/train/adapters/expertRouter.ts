import * as z from "zod/mini";
import { type Random, UsageError } from "../../core/index.js";
import { linear } from "../engine/layers.js";
import { multiply, type Traced } from "../engine/ops.js";
import type { AdaptedPass } from "../trace/adaptation.js";
import { balanceLoss, route } from "../trace/route.js";

/** Settings of the routers of a mixture of adapters. */
export const routerOptions = {
  experts: z._default(z.int().check(z.gte(1), z.lte(256)), 10).check(z.describe("of every module")),
  topK: z
    .optional(z.int().check(z.gte(1), z.lte(256)))
    .check(z.describe("experts of a token that count; all by default")),
  balance: z
    ._default(z.number().check(z.gte(0), z.lte(1e3)), 0)
    .check(z.describe("what the loss that balances the experts is multiplied by")),
};

/** Their values. */
export interface RouterSettings {
  experts: number;
  topK?: number | undefined;
  balance: number;
}

/** Deviation of what routers, and the first half of pairs, begin with. */
const deviation = 0.02;

/** f32, normal around 0, as the paper's code draws it. */
export const drawn = (length: number, random: Random): Float32Array =>
  Float32Array.from({ length }, () => deviation * random.normal());

/** @throws UsageError for more experts that count than there are */
export function checkRouter({ experts, topK }: RouterSettings): void {
  if (topK !== undefined && topK > experts)
    throw new UsageError(`topK ${topK} of ${experts} experts; take at most as many`);
}

/**
 * What weighs the experts: softmax(x·routerᵀ) f32 [rows, experts], with 0 for those that do not count.
 * @param x [rows, width] @param router [experts, width]
 */
export function gatesOf(
  x: Traced,
  router: Traced,
  { experts, topK = experts, balance }: RouterSettings,
  pass: AdaptedPass,
): Traced {
  const { gates, scores, chosen } = route(linear(x, router), { score: "softmax", perToken: topK, normalise: false });
  if (balance > 0) pass.penalties.push(multiply(balanceLoss(scores, chosen, topK), balance));
  return gates;
}

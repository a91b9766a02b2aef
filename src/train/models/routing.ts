import * as z from "zod/mini";
import { findStep, type MixtureStep, type ModelSpec } from "../../arch/index.js";
import { UsageError } from "../../core/index.js";
import { parseSchema } from "../../core/internal.js";
import type { BatchControl } from "../objective.js";
import { biasName } from "./routerNames.js";
import type { RouterOptions, Routing } from "./routerOptions.js";
import { biasControl, sparsityControl } from "./routers.js";

const zLoss = z
  ._default(z.number().check(z.gte(0)), 0)
  .check(z.describe("weight of the squared log-sum-exp of router logits"));

const balanced = z.strictObject({
  balance: z
    .optional(z.number().check(z.gte(0)))
    .check(z.describe("weight of the balancing loss: that of config.json")),
  zLoss,
});

/** Options of every way of routing; a way is complete with a line here and one in `trace/mixture.ts`. */
const routingOptions = {
  own: balanced,
  softmax: balanced,
  bias: z.strictObject({
    speed: z._default(z.number().check(z.gte(0)), 1e-3).check(z.describe("change of a bias in a step")),
    zLoss,
  }),
  relu: z.strictObject({
    initial: z
      ._default(z.number().check(z.gt(0)), 1e-8)
      .check(z.describe("weight λ of the sparsity loss at the start")),
    factor: z._default(z.number().check(z.gte(1)), 1.2).check(z.describe("by which λ grows or falls in a step")),
    zLoss,
  }),
} satisfies Record<Routing, z.core.$ZodType>;

/** Every way in which tokens of a trained mixture find their experts. */
export const routings = Object.keys(routingOptions) as Routing[];

/** A model's mixtures of experts as they are trained. */
export interface TrainedMixture {
  router: RouterOptions & { routing: Routing };
  /** The options with their defaults, for the record. */
  settings: Record<string, unknown>;
  control?: BatchControl;
  /** What the control decides and a checkpoint must hold, by tensor name: the control's own arrays, one per mixture. */
  tensors: ReadonlyMap<string, Float32Array>;
}

const biasTensor = ({ router }: MixtureStep) =>
  router.map.weight.tensor.replace(/\.weight$/, ".e_score_correction_bias");

/**
 * @param options as the caller wrote them
 * @param tokens of a batch
 * @returns undefined for a model without experts
 * @throws UsageError for a routing or options that are not there
 */
export function trainedMixture(
  { blocks }: Pick<ModelSpec, "blocks">,
  routing: string,
  options: unknown,
  tokens: number,
): TrainedMixture | undefined {
  const mixtures = blocks.flatMap((block) => findStep(block, "mixture") ?? []);
  if (mixtures.length === 0) return undefined;
  if (!Object.hasOwn(routingOptions, routing)) {
    throw new UsageError(`there is no routing ${routing}; there are ${routings.join(", ")}`);
  }
  const parse = <T>(schema: z.core.$ZodType<T>): T => {
    const parsed = parseSchema(schema, options);
    if (parsed.success) return parsed.data;
    const [first] = parsed.error.issues;
    throw new UsageError(`options of the routing ${routing}: ${first.path.join(".")}: ${first.message}`);
  };
  const [{ router, experts }] = mixtures;
  const sizes = { layers: mixtures.length, experts: experts.length };
  const byLoss = (routing: "own" | "softmax"): TrainedMixture => {
    const { balance = router.balance ?? 0, zLoss } = parse(routingOptions[routing]);
    return { router: { routing, balance, zLoss }, settings: { balance, zLoss }, tensors: new Map() };
  };
  const builders: Record<Routing, () => TrainedMixture> = {
    own: () => byLoss("own"),
    softmax: () => byLoss("softmax"),
    bias() {
      const settings = parse(routingOptions.bias);
      const control = biasControl({ ...sizes, speed: settings.speed });
      const tensors = new Map(
        mixtures.map((mixture, m) => [biasTensor(mixture), control.state[biasName(m)] as Float32Array]),
      );
      return { router: { routing: "bias", zLoss: settings.zLoss }, settings, control, tensors };
    },
    relu() {
      const settings = parse(routingOptions.relu);
      const control = sparsityControl({ ...sizes, expertsPerToken: router.perToken, tokens, ...settings });
      return { router: { routing: "relu", zLoss: settings.zLoss }, settings, control, tensors: new Map() };
    },
  };
  return builders[routing as Routing]();
}

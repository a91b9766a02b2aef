import type { MixtureStep, RouterSpec, Step } from "../../arch/index.js";
import { add, logSumExp, mean, multiply, split, square, sum, type Traced } from "../engine/ops.js";
import { biasName, sparsityWeightName } from "../models/routerNames.js";
import type { Routing } from "../models/routerOptions.js";
import type { BlockPass, TracedPass } from "./pass.js";
import { balanceLoss, type RouteOptions, route } from "./route.js";

/**
 * What a mixture of experts gives for the rows of `step.of`. Every expert is evaluated for every row and multiplied by its
 * gate, which is exact and costs experts / perToken times a dispatched one.
 * @param trace traces the steps of one expert
 */
export function mixture(
  { of, router, experts }: MixtureStep,
  { pass, layer, buffers }: BlockPass,
  trace: (steps: readonly Step[], block: BlockPass) => void,
): Traced {
  const x = buffers.get(of)!;
  const logits = pass.whole(x, router.map);
  const { zLoss = 0, routing = "own" } = pass.options.router ?? {};
  const { options, balance } = routings[routing](router, pass);
  const { gates, scores, chosen } = route(logits, options);
  const penalties = [
    ...(balance === 0 ? [] : [multiply(balanceLoss(scores, chosen, router.perToken), balance)]),
    ...(zLoss === 0 ? [] : [multiply(mean(square(logSumExp(logits))), zLoss)]),
  ];
  pass.mixtures.push({ penalties, load: sum(chosen, 0) });

  const columns = split(gates, experts.length, 1);
  return experts
    .map(({ steps, out }, e) => {
      const own = new Map(buffers);
      trace(steps, { pass, layer, buffers: own });
      return multiply(own.get(out)!, columns[e]);
    })
    .reduce(add);
}

/** How experts are chosen and weighed by each routing, and the weight of the loss that balances them. */
const routings: Readonly<
  Record<Routing, (router: RouterSpec, pass: TracedPass) => { options: RouteOptions; balance: Traced | number }>
> = {
  own: (router, pass) => ({
    options: { ...router, choiceBias: router.choiceBias && pass.weight(router.choiceBias) },
    balance: pass.options.router?.balance ?? 0,
  }),
  softmax: ({ perToken, normalise }, { options }) => ({
    options: { perToken, score: "softmax", normalise: options.router?.normalised ?? normalise },
    balance: options.router?.balance ?? 0,
  }),
  bias: ({ perToken }, { options, batch, mixtures }) => ({
    options: {
      perToken,
      score: "sigmoid",
      normalise: options.router?.normalised ?? true,
      choiceBias: batch[biasName(mixtures.length)],
    },
    balance: 0,
  }),
  relu: (_, { batch }) => ({
    options: { score: "relu", normalise: false },
    balance: batch[sparsityWeightName],
  }),
};

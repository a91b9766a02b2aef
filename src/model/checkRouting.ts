import { findStep, type ModelSpec, tensorsOf } from "../arch/index.js";
import { FormatError } from "../core/index.js";
import { artifactFileName, type Checkpoint, trainingOf } from "../io/index.js";

const hint = "rarefy finetune goes on with it, rarefy finetune --router own turns it into one that runs";

/** Whether a tensor of a checkpoint holds biases by which the experts of a layer are chosen. */
const isRouterBias = (name: string): boolean => name.endsWith(".gate.e_score_correction_bias");

/** Whether experts are chosen and weighed by a softmax over all of them, as the routing of that name does. */
const isSoftmax = ({ blocks }: ModelSpec): boolean =>
  blocks.every((block) => {
    const router = findStep(block, "mixture")?.router;
    if (router === undefined) return true;
    const { score, choiceFirst, choiceBias, groups, uniform, factor = 1 } = router;
    return score === "softmax" && !choiceFirst && !choiceBias && !groups && !uniform && factor === 1;
  });

/** The routing by which training made a model of this description, where it is not that of its family. */
export function routingOf({ blocks }: ModelSpec): string | undefined {
  const [router] = blocks.flatMap((block) => findStep(block, "mixture")?.router ?? []);
  if (router?.score === "relu") return "relu";
  return router?.score === "sigmoid" && router.choiceBias && !router.groups ? "bias" : undefined;
}

/**
 * A mixture of experts runs with the routing of its description. One that was trained with another would give wrong
 * probabilities without saying so.
 * @throws FormatError for such a one
 */
export function checkRouting({ location, artifact, tensors }: Checkpoint, spec: ModelSpec): void {
  const router = artifact && trainingOf(artifact)?.router;
  const described = routingOf(spec);
  const runs = described === undefined ? ["own", ...(isSoftmax(spec) ? ["softmax"] : [])] : ["own", described];
  if (router !== undefined && !runs.includes(router as string)) {
    throw new FormatError({
      file: `${location}/${artifactFileName}`,
      field: "origin.training.router",
      problem: `the experts are trained with the routing ${JSON.stringify(router)}`,
      expected: `${runs.map((id) => JSON.stringify(id)).join(" or ")}, the routings that its config.json says`,
      hint,
    });
  }
  const named = new Set(tensorsOf(spec).map(({ name }) => name));
  const bias = [...tensors.keys()].find((name) => isRouterBias(name) && !named.has(name));
  if (bias === undefined) return;
  throw new FormatError({
    file: location,
    field: bias,
    problem: "the experts are chosen with biases",
    expected: 'a router without biases, or "router_type": "bias" in config.json',
    hint,
  });
}

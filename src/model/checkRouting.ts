import { type ModelSpec, tensorsOf } from "../arch/index.js";
import { FormatError } from "../core/index.js";
import { artifactFileName, type Checkpoint, trainingOf } from "../io/index.js";

const hint = "rarefy finetune goes on with it; --router softmax turns it into one that runs";

/** Whether a tensor of a checkpoint holds biases by which the experts of a layer are chosen. */
export const isRouterBias = (name: string): boolean => name.endsWith(".gate.e_score_correction_bias");

/**
 * A mixture of experts runs with softmax over the chosen experts. One that was trained with another routing would give wrong
 * probabilities without saying so.
 * @throws FormatError for such a one
 */
export function checkRouting({ location, artifact, tensors }: Checkpoint, spec: ModelSpec): void {
  const router = artifact && trainingOf(artifact)?.router;
  if (router !== undefined && router !== "own" && router !== "softmax") {
    throw new FormatError({
      file: `${location}/${artifactFileName}`,
      field: "origin.training.router",
      problem: `the experts are trained with the routing ${JSON.stringify(router)}`,
      expected: '"softmax", the only routing that models run with',
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
    expected: "a router without biases, the only one that models run with",
    hint,
  });
}

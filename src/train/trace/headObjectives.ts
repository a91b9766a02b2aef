import type { ModelSpec } from "../../arch/index.js";
import type { Checkpoint } from "../../io/index.js";
import { crossEntropy } from "../engine/layers.js";
import { multiply } from "../engine/ops.js";
import { type TracedArrays, tracedObjective } from "../engine/tracedObjective.js";
import { readWeights } from "../languageModel.js";
import { headParameters, type ModelParameter } from "../models/parameters.js";
import type { BatchArray, Objective } from "../objective.js";
import { inputName, passOf, streamParameter } from "./blockObjectives.js";
import { traceHead } from "./trace.js";

/** The loss behind the last block as a function of what leaves it. */
export class HeadObjectives implements Disposable {
  readonly #parameters: readonly ModelParameter[];
  /** By the rows of a pass: the stream is a parameter, and parameters have one shape. */
  readonly #compiled = new Map<number, Objective>();

  constructor(
    readonly checkpoint: Checkpoint,
    readonly spec: ModelSpec,
    /** Tokens of a window. */
    readonly length: number,
  ) {
    this.#parameters = headParameters(spec);
  }

  /** Reads the head. @returns the objective of a stream [rows, hiddenSize], asked with `at` and the labels */
  async load() {
    const weights = await readWeights(this.checkpoint, this.#parameters);
    /** @param share what the mean loss over all rows is multiplied by */
    const asked = (shape: readonly number[], stream: Float32Array, label: BatchArray, share: number) => {
      const scale = { shape: [], values: Float32Array.of(share) };
      return [this.#objective(shape), new Map(weights).set(inputName, stream), { label, scale }] as const;
    };
    return {
      async lossAndGradient(...given: Parameters<typeof asked>) {
        const [objective, values, batch] = asked(...given);
        const { loss, gradients } = await objective.lossAndGradients(values, batch);
        return { loss, gradient: gradients.get(inputName)! };
      },
      loss(...given: Parameters<typeof asked>) {
        const [objective, values, batch] = asked(...given);
        return objective.loss(values, batch);
      },
    };
  }

  [Symbol.dispose](): void {
    for (const objective of this.#compiled.values()) objective[Symbol.dispose]();
  }

  #objective(shape: readonly number[]): Objective {
    const found = this.#compiled.get(shape[0]);
    if (found !== undefined) return found;
    const { spec, length } = this;
    const logits = (weights: TracedArrays, batch: TracedArrays) =>
      traceHead(spec, weights[inputName], passOf({ ...batch, ...weights }, length));
    // The head's own gradients are not wanted. Were they not asked for, the engine would compute the gradient of the logits anew
    // inside of the product that it enters, exponentials and all, which takes 30 times as long.
    const objective = tracedObjective({
      parameters: [streamParameter(shape), ...this.#parameters],
      predict: logits,
      loss: (weights, batch) => ({ loss: multiply(crossEntropy(logits(weights, batch), batch.label), batch.scale) }),
    });
    this.#compiled.set(shape[0], objective);
    return objective;
  }
}

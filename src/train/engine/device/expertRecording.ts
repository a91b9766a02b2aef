import type { Step, TensorRef } from "../../../arch/index.js";
import type { Place } from "./layout.js";
import { NoKernel } from "./noKernel.js";
import type { Operation } from "./pass.js";
import { Recording } from "./recording.js";
import type { Room, Slots } from "./rooms.js";

/** The experts of a mixture while they are planned as one: rows are the slots of all, and the place of a weight is that of each. */
export class ExpertRecording extends Recording {
  readonly #twins = new Map<TensorRef, readonly TensorRef[]>();

  /** @param experts the steps of each, of one shape; those of the first are recorded */
  constructor(
    readonly outer: Recording,
    readonly slots: Slots,
    experts: readonly (readonly Step[])[],
  ) {
    super(outer.layout, outer.window, outer.options);
    for (const [s, step] of experts[0].entries()) {
      if (step.do !== "linear" && step.do !== "activate")
        throw new NoKernel(`experts with steps of the kind ${step.do}`);
      if (step.do === "linear" && step.maps.some(({ map }) => map.bias)) throw new NoKernel("experts with biases");
      for (const [m, weight] of weightsOf(step).entries()) {
        this.#twins.set(
          weight,
          experts.map((steps) => weightsOf(steps[s])[m]),
        );
      }
    }
  }

  override readonly keep = (label: string, width: number) => this.outer.keep(label, width, this.slots);

  override place(...refs: readonly TensorRef[]): Place {
    const [first, ...others] = Array.from({ length: this.slots.experts }, (_, e) =>
      super.place(...refs.map((ref) => this.#twins.get(ref)![e])),
    );
    const expert = first.rows * first.cols;
    if (others.some(({ offset }, e) => offset !== first.offset + (e + 1) * expert)) {
      throw new NoKernel("experts whose weights are used elsewhere");
    }
    return { ...first, expert };
  }

  /** The operations of all experts among those of the model. @param runs room of the runs of their rows */
  operationsAt(runs: Room): Operation[] {
    const { slots } = this;
    return this.operations.map((operation) => ({
      forward: (pass) => operation.forward(pass.ofExperts(slots, runs)),
      back(gradients) {
        const back = operation.back(gradients);
        return (pass) => back(pass.ofExperts(slots, runs));
      },
    }));
  }
}

const weightsOf = (step: Step): readonly TensorRef[] =>
  step.do === "linear" ? step.maps.map(({ map }) => map.weight) : [];

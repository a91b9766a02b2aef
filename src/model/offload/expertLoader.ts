import type { ModelSpec, Step } from "../../arch/index.js";
import type { Backend, Vector } from "../../kernels/index.js";
import type { LoadModelOptions } from "../loadOptions.js";
import { type ExpertStream, placeExperts } from "./expertPlacement.js";
import { ExpertOffload } from "./experts.js";

/** Loads what stays in memory of a model whose experts are read as they are needed: their biases. */
export class ExpertLoader {
  readonly #streams: readonly ExpertStream[];
  readonly #biases = new Map<Step, readonly Vector[]>();
  #offload: ExpertOffload | undefined;

  constructor(
    readonly backend: Backend,
    readonly offload: NonNullable<LoadModelOptions["offload"]>,
    spec: ModelSpec,
  ) {
    this.#streams = placeExperts(spec, offload.file.shape.weights).streams;
  }

  /** @param biases of a linear step of every expert, by that of the first */
  keepBiases(step: Step, biases: readonly Vector[]): void {
    this.#biases.set(step, biases);
  }

  /** What was opened. */
  get opened(): ExpertOffload {
    return this.#offload!;
  }

  /** Once everything else is loaded. @param fixedBytes what that takes */
  async open(fixedBytes: number): Promise<ExpertOffload> {
    const { file, options } = this.offload;
    this.#offload = await ExpertOffload.open(
      this.backend,
      file,
      this.#streams,
      this.#biases,
      Math.ceil(fixedBytes),
      options,
    );
    return this.#offload;
  }
}

import type { TensorRef } from "../arch/index.js";
import type { Backend, ExpertMatrices, Matrix, Region, RowSource } from "../kernels/index.js";
import { isSparse, type PackedFormatId, sparseFormats, valueTypeOf, type WeightFormatId } from "../pack/index.js";
import type { LoadModelOptions } from "./loadOptions.js";
import { type SparsityProfile, sparsityProfile } from "./sparsityProfile.js";
import { chooseFormat, type MatrixChoice } from "./structure.js";
import { type ReadEvents, type TensorSource, tensorRows } from "./tensorRows.js";

/** What a matrix is taken for whose zeros nobody asked about. */
const unexamined = { rows: 0, cols: 0, density: 1, blockDensity: 1, twoOfFour: false } satisfies SparsityProfile;

/** A stored matrix and its rows as it is multiplied. */
export interface MatrixRef {
  ref: TensorRef;
  rows: number;
}

const unpadded = (rows: number): number => rows;

/** Loads matrices into a region of a backend, each in the format that is chosen for it. */
export class MatrixLoader {
  /** One for each matrix whose format was chosen, in the order of loading. */
  readonly choices: MatrixChoice[] = [];

  constructor(
    readonly source: TensorSource,
    readonly backend: Backend,
    readonly region: Region,
    readonly options: LoadModelOptions,
    readonly events: ReadEvents,
  ) {}

  /** A stack in the format that the options ask for or that is fastest. @param pad from stored rows to rows */
  async load(tensors: readonly MatrixRef[], pad = unpadded): Promise<Matrix> {
    const sources = this.#sources(tensors, pad);
    const format = await this.#choose(sources, 1);
    return this.region.loadMatrix(sources, format, { signal: this.options.signal });
  }

  /** The same stack of every expert, all in one format. */
  async loadExperts(
    experts: readonly (readonly MatrixRef[])[],
    biases: readonly Float32Array[] | undefined,
  ): Promise<ExpertMatrices> {
    const sources = experts.map((tensors) => this.#sources(tensors, unpadded));
    const format = await this.#choose(sources.flat(), experts.length);
    return this.region.loadExperts(sources, format, { signal: this.options.signal, biases });
  }

  /** A matrix in a format that is not to be chosen. */
  async loadAs(tensor: MatrixRef, format: WeightFormatId, pad = unpadded): Promise<Matrix> {
    return this.region.loadMatrix(this.#sources([tensor], pad), format, { signal: this.options.signal });
  }

  /** @param stacks how many stacks of one shape the sources make, each multiplied by itself */
  async #choose(sources: readonly RowSource[], stacks: number): Promise<PackedFormatId> {
    const { weights, structure = "auto", costs, signal } = this.options;
    const formats = this.backend.formats ?? [];
    const examine =
      structure !== "dense" &&
      formats.some((id) => isSparse(id) && valueTypeOf(id) === weights && sparseFormats[id].pattern !== undefined);
    const profile = examine ? await sparsityProfile(sources, { signal }) : unexamined;
    const measure = this.backend.measureCosts?.bind(this.backend, weights);
    const names = sources.map(({ name }) => name);
    const one = { ...profile, rows: profile.rows / stacks };
    const askCosts = costs === undefined ? measure : async () => costs;
    const choice = await chooseFormat(names, one, weights, structure, formats, askCosts);
    this.choices.push(choice);
    return choice.format;
  }

  #sources(tensors: readonly MatrixRef[], pad: (rows: number) => number) {
    return tensors.map(({ ref, rows }) => tensorRows(this.source, ref, pad(rows), this.events));
  }
}

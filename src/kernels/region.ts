import { type JobOptions, UsageError } from "../core/index.js";
import type { PackedFormatId } from "../pack/index.js";
import type { ExpertMatrices, LoadExpertsOptions } from "./experts.js";
import type { Matrix, RopeLayout, RopeTable, RowSource, Vector } from "./handles.js";

/** What weights are loaded by: a backend, which keeps them while it lives, or a region of it. */
export interface WeightLoading {
  /**
   * Packs a matrix straight from its source: reads a few rows, packs them, forgets them. Formats that leave zeros out
   * read every row twice, first to measure.
   * All parts must have the same `cols`.
   * @throws UsageError for a format that is not one of `formats`, or that cannot hold the pattern of the weights
   */
  loadMatrix(parts: readonly RowSource[], format: PackedFormatId, job?: JobOptions): Promise<Matrix>;
  /**
   * `loadMatrix` of the same parts of every expert.
   * @throws UsageError as `loadMatrix`, and when the shapes of the experts differ
   */
  loadExperts(
    experts: readonly (readonly RowSource[])[],
    format: PackedFormatId,
    options?: LoadExpertsOptions,
  ): Promise<ExpertMatrices>;
  loadVector(values: Float32Array): Vector;
  /**
   * @param cos f32 [positions, layout.width / 2], like `sin`
   * @throws UsageError for a layout that no head has
   */
  loadRope(cos: Float32Array, sin: Float32Array, layout: RopeLayout): RopeTable;
}

/**
 * Weights of a backend that are given back together: a model, one block of it on its way through calibration, an adapter.
 * Disposing it runs what is enqueued; what lay there may be used again. Its handles must not be used any more.
 */
export interface Region extends WeightLoading, Disposable {}

/** A backend as its regions see it: weights can be given back one by one. */
export interface WeightOwner extends WeightLoading {
  freeMatrix(matrix: Matrix): void;
  freeExperts(matrices: ExpertMatrices): void;
  freeVector(vector: Vector): void;
  freeRope(table: RopeTable): void;
}

/** A region that keeps a list of what it has loaded. */
export class LoadedRegion implements Region {
  readonly #owner: WeightOwner;
  #loaded: (() => void)[] = [];
  #disposed = false;

  constructor(owner: WeightOwner) {
    this.#owner = owner;
  }

  async loadMatrix(parts: readonly RowSource[], format: PackedFormatId, job?: JobOptions): Promise<Matrix> {
    this.#alive();
    const matrix = await this.#owner.loadMatrix(parts, format, job);
    return this.#keep(matrix, () => this.#owner.freeMatrix(matrix));
  }

  async loadExperts(
    experts: readonly (readonly RowSource[])[],
    format: PackedFormatId,
    options?: LoadExpertsOptions,
  ): Promise<ExpertMatrices> {
    this.#alive();
    const matrices = await this.#owner.loadExperts(experts, format, options);
    return this.#keep(matrices, () => this.#owner.freeExperts(matrices));
  }

  loadVector(values: Float32Array): Vector {
    this.#alive();
    const vector = this.#owner.loadVector(values);
    return this.#keep(vector, () => this.#owner.freeVector(vector));
  }

  loadRope(cos: Float32Array, sin: Float32Array, layout: RopeLayout): RopeTable {
    this.#alive();
    const table = this.#owner.loadRope(cos, sin, layout);
    return this.#keep(table, () => this.#owner.freeRope(table));
  }

  [Symbol.dispose](): void {
    this.#disposed = true;
    const loaded = this.#loaded;
    this.#loaded = [];
    for (const free of loaded) free();
  }

  /** What finished loading after the region was disposed of is given back at once. */
  #keep<T>(handle: T, free: () => void): T {
    if (this.#disposed) {
      free();
      this.#alive();
    }
    this.#loaded.push(free);
    return handle;
  }

  #alive(): void {
    if (this.#disposed) throw new UsageError("a region that was disposed of");
  }
}

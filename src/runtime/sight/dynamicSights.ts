import { type Activation, chosenBlocks, type Sight } from "../../kernels/index.js";
import type { FindSight, LayerQueries, Model } from "../../model/index.js";
import type { Phase, Seeker } from "./dynamic.js";

/** What the layers of a model see in the passes of one sequence, by a dynamic pattern. */
export class DynamicSights implements Disposable {
  readonly #scratch = new Map<string, Activation>();

  constructor(
    readonly model: Model,
    readonly seeker: Seeker,
  ) {}

  /** For a pass that runs tokens of `phase`. */
  of(phase: Phase | undefined): FindSight {
    return async (queries) => this.#find(queries, phase);
  }

  async #find(queries: LayerQueries, phase: Phase | undefined): Promise<Sight | undefined> {
    const { backend } = this.model;
    const { q, slot, queryHeads } = queries;
    const scratch = (name: string, rows: number, cols: number) => this.#take(name, rows, cols);
    const chosen = await this.seeker.find({ ...queries, backend, phase, scratch });
    if (chosen === undefined) return undefined;
    return backend.loadSight(chosenBlocks({ rows: q.rows, slots: slot + q.rows, heads: queryHeads }, chosen));
  }

  /** Of what it keeps of keys, at most, and of what it looks them up with, now. */
  get byteLength(): number {
    const scratch = [...this.#scratch.values()].reduce((sum, { rows, cols }) => sum + rows * cols, 0);
    return scratch * Float32Array.BYTES_PER_ELEMENT + (this.seeker.mostBytes ?? 0);
  }

  #take(name: string, rows: number, cols: number): Activation {
    let held = this.#scratch.get(name);
    // Scores widen as a text grows: what has become too narrow is not kept.
    if (held === undefined || held.cols !== cols || held.rows < rows) {
      const { backend } = this.model;
      if (held !== undefined) backend.release(held);
      held = backend.allocate(2 ** Math.ceil(Math.log2(rows)), cols);
      this.#scratch.set(name, held);
    }
    return held.rowRange(0, rows);
  }

  [Symbol.dispose](): void {
    for (const held of this.#scratch.values()) this.model.backend.release(held);
    this.#scratch.clear();
    this.seeker[Symbol.dispose]();
  }
}

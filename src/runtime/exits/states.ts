import type { Activation } from "../../kernels/index.js";
import type { Model } from "../../model/index.js";
import { exitFeatures } from "./features.js";
import type { Exits } from "./index.js";
import type { ExitDecider } from "./rule.js";

/** Logits are looked at in pieces of at most this many numbers (32 MiB), whatever the vocabulary. */
const pieceValues = 2 ** 23;
const copy = { f: "scale", by: 1 } as const;

/**
 * What early exit leaves of tokens that are run together, for evaluation: all run all layers, and the state with which each would
 * have left is put back behind the last. Numbers are those of `EarlyExit` token by token; nothing is saved.
 */
export class ExitStates implements Disposable {
  readonly #probed: ReadonlySet<number>;
  readonly #begin: () => ExitDecider;
  readonly #left: Activation;
  /** Of each row: what looks at it, and behind how many layers it left. */
  #rows: { mayLeave: ExitDecider; layers: number | undefined }[] = [];
  #tokens = 0;
  #exitLayers = 0;

  /** @param rows of a pass at most @throws UsageError where the rule does not fit the model */
  constructor(
    readonly model: Model,
    readonly exits: Exits,
    rows: number,
  ) {
    const { layers, hiddenSize } = model.config;
    this.#probed = new Set(exits.probed(layers));
    this.#begin = exits.open(layers);
    this.#left = model.backend.allocate(rows, hiddenSize);
  }

  /** Layers behind which tokens left, on average. */
  get meanExitLayer(): number {
    return this.#exitLayers / this.#tokens;
  }

  /** Before the first layer of a pass. */
  begin(rows: number): void {
    this.#rows = Array.from({ length: rows }, () => ({ mayLeave: this.#begin(), layers: undefined }));
  }

  /** Behind each. @param layers that were run @param x the residual stream [rows, hiddenSize] */
  async ran(layers: number, x: Activation): Promise<void> {
    // What has left stays as it is, and so do the keys and values that deeper layers make of it.
    if (this.exits.fill === "propagate") this.#putBack(x);
    if (this.#probed.has(layers)) await this.#look(layers, x);
    if (layers < this.model.config.layers) return;
    this.#putBack(x);
    for (const row of this.#rows) this.#exitLayers += row.layers ?? layers;
    this.#tokens += this.#rows.length;
  }

  async #look(layers: number, x: Activation): Promise<void> {
    const { backend, config } = this.model;
    const most = Math.max(1, Math.floor(pieceValues / config.vocabSize));
    for (let first = 0; first < x.rows; first += most) {
      const rows = Math.min(most, x.rows - first);
      const logits = this.model.head(x.rowRange(first, rows));
      const values = await backend.read(logits);
      const { cols } = logits;
      backend.release(logits);
      for (let r = 0; r < rows; r++) {
        const row = this.#rows[first + r];
        if (row.layers !== undefined) continue;
        const features = exitFeatures(values.subarray(r * cols, r * cols + config.vocabSize));
        if (!row.mayLeave(layers, features)) continue;
        row.layers = layers;
        backend.map(this.#left.rowRange(first + r, 1), x.rowRange(first + r, 1), copy);
      }
    }
  }

  #putBack(x: Activation): void {
    for (const [r, { layers }] of this.#rows.entries()) {
      if (layers !== undefined) this.model.backend.map(x.rowRange(r, 1), this.#left.rowRange(r, 1), copy);
    }
  }

  [Symbol.dispose](): void {
    this.model.backend.release(this.#left);
  }
}

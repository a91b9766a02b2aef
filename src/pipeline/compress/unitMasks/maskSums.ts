import type { MaskProblem } from "../../../compress/internal.js";
import type { Activation, Backend } from "../../../kernels/index.js";
import type { BlockMatrix } from "../block.js";

/** Sums over tokens for the factors of the units of one map: the gram of [inputs of the units that stay, what is wanted, 1]. */
export class MaskSums implements Disposable {
  /** Inputs of the units that stay. */
  readonly #columns: number[];
  readonly #units: number;
  readonly #width: number;
  readonly #gram: Activation | undefined;
  readonly #onHost: Float64Array;
  #tokens = 0;

  /** @param hasConstant a free number is added to all outputs */
  constructor(
    readonly backend: Backend,
    readonly matrix: Pick<BlockMatrix, "weight" | "rows" | "cols">,
    factors: readonly number[],
    readonly hasConstant: boolean,
  ) {
    const { rows, cols } = matrix;
    const run = cols / factors.length;
    this.#columns = Array.from({ length: cols }, (_, c) => c).filter((c) => factors[Math.floor(c / run)] !== 0);
    this.#units = this.#columns.length / run;
    // Of activations, a multiple of 4.
    this.#width = Math.ceil((this.#columns.length + rows + 1) / 4) * 4;
    const onBackend = backend.addGram !== undefined;
    this.#onHost = new Float64Array(onBackend ? 0 : this.#width ** 2);
    if (!onBackend) return;
    this.#gram = backend.allocate(this.#width, this.#width);
    backend.write(this.#gram, new Float32Array(this.#width ** 2));
  }

  /**
   * @param values f32 [tokens, cols]: what enters the map
   * @param wanted f32 [all tokens, rows]: what it is to give
   * @param first token of the first row of `values`
   * @param only tokens that count; default all
   */
  add(values: Float32Array, wanted: Float32Array, first: number, only?: ReadonlySet<number>): void {
    const { rows, cols } = this.matrix;
    const columns = this.#columns;
    const tokens = Array.from({ length: values.length / cols }, (_, t) => t);
    const taken = only === undefined ? tokens : tokens.filter((t) => only.has(first + t));
    if (taken.length === 0) return;
    const joined = new Float32Array(taken.length * this.#width);
    for (const [row, t] of taken.entries()) {
      const at = row * this.#width;
      for (let i = 0; i < columns.length; i++) joined[at + i] = values[t * cols + columns[i]];
      joined.set(wanted.subarray((first + t) * rows, (first + t + 1) * rows), at + columns.length);
      joined[at + columns.length + rows] = 1;
    }
    this.#tokens += taken.length;
    this.#addGram(joined, taken.length);
  }

  async finish(): Promise<MaskProblem> {
    const { rows, cols: all, weight } = this.matrix;
    const columns = this.#columns;
    const cols = columns.length;
    const sums = this.#gram === undefined ? this.#onHost : await this.backend.read(this.#gram);
    // Of a gram on a backend the upper triangle counts.
    const sum = (i: number, j: number) => sums[Math.min(i, j) * this.#width + Math.max(i, j)];
    const [outputs, one] = [cols, cols + rows];
    return {
      weight: Float32Array.from(
        { length: rows * cols },
        (_, i) => weight[Math.floor(i / cols) * all + columns[i % cols]],
      ),
      rows,
      cols,
      units: this.#units,
      gram: Float64Array.from({ length: cols * cols }, (_, i) => sum(Math.floor(i / cols), i % cols)),
      cross: Float64Array.from({ length: rows * cols }, (_, i) => sum(i % cols, outputs + Math.floor(i / cols))),
      ...(this.hasConstant && {
        constant: {
          inputs: Float64Array.from(columns, (_, i) => sum(i, one)),
          outputs: Array.from({ length: rows }, (_, r) => sum(outputs + r, one)).reduce((a, b) => a + b, 0),
          tokens: this.#tokens,
        },
      }),
    };
  }

  #addGram(x: Float32Array, rows: number): void {
    const { backend } = this;
    const width = this.#width;
    if (this.#gram !== undefined) {
      const activation = backend.allocate(rows, width);
      backend.write(activation, x);
      backend.addGram!(this.#gram, activation);
      backend.release(activation);
      return;
    }
    for (let start = 0; start < x.length; start += width) {
      for (let i = 0; i < width; i++) {
        const value = x[start + i];
        if (value !== 0) for (let j = i; j < width; j++) this.#onHost[i * width + j] += value * x[start + j];
      }
    }
  }

  [Symbol.dispose](): void {
    if (this.#gram !== undefined) this.backend.release(this.#gram);
  }
}

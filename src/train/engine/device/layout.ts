import type { ParameterInfo } from "../../values.js";

/** Rows of a matrix [rows, cols], or of several one below the other, and where they begin among all parameters. */
export interface Place {
  offset: number;
  rows: number;
  cols: number;
  /** Of the first of several experts: how many f32 behind it that of the next begins. */
  expert?: number;
}

/** Where every parameter of a model lies in one array of f32. */
export interface Plan {
  /** Offset by name. */
  offsets: ReadonlyMap<string, number>;
  /** f32 in all. */
  length: number;
}

/** Gives parameters their places, one after the other; those that are named again keep theirs. */
export class Layout {
  readonly offsets = new Map<string, number>();
  length = 0;
  readonly #shapes: ReadonlyMap<string, readonly number[]>;
  readonly #places = new Map<string, Place>();

  constructor(parameters: readonly ParameterInfo[]) {
    this.#shapes = new Map(parameters.map(({ name, shape }) => [name, shape]));
  }

  /** Parameters one below the other; the rows end at a multiple of `rowUnit`. */
  place(names: readonly string[], rowUnit = 1): Place {
    const key = names.join("\n");
    const found = this.#places.get(key);
    if (found !== undefined) return found;
    const at: Place = { offset: this.length, rows: 0, cols: 0 };
    for (const name of names) {
      const [rows, cols = 1] = this.#shapes.get(name) ?? [0];
      this.offsets.set(name, at.offset + at.rows * cols);
      at.rows += rows;
      at.cols = cols;
    }
    at.rows = Math.ceil(at.rows / rowUnit) * rowUnit;
    this.length += at.rows * at.cols;
    this.#places.set(key, at);
    return at;
  }

  /** Whether every place is one that kernels read, four f32 at a time. */
  get isAligned(): boolean {
    return [...this.#places.values()].every(({ rows, cols }) => (cols === 1 ? rows : cols) % 4 === 0);
  }

  /** Whether the parameters are those that were given places, each once. */
  get isComplete(): boolean {
    const placed = [...this.#places.keys()].join("\n").split("\n");
    return placed.length === this.#shapes.size && placed.every((name) => this.#shapes.has(name));
  }
}

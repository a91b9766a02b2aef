import type { Model, PassThresholds } from "../../model/index.js";
import { kvBytesPerPosition } from "../../model/index.js";
import { Sequence } from "../../runtime/index.js";

/** Bytes of keys and values that are held at once, unless the least that is needed has more. */
const budgetBytes = 2 ** 28;
const mostSequences = 96;
/** A shared beginning, one that goes on with it, and one behind that. */
const fewestSequences = 3;

/** Sequences of one capacity that are used again and again. */
export class SequencePool implements Disposable {
  readonly most: number;
  readonly #free: Sequence[] = [];
  readonly #all: Sequence[] = [];

  constructor(
    readonly model: Model,
    readonly capacity: number,
    readonly thresholds: PassThresholds,
  ) {
    const each = Math.max(1, capacity * kvBytesPerPosition(model.config));
    this.most = Math.max(fewestSequences, Math.min(mostSequences, Math.floor(budgetBytes / each)));
  }

  get free(): number {
    return this.most - (this.#all.length - this.#free.length);
  }

  /** An empty one; give it back with `release`. */
  acquire(): Sequence {
    const known = this.#free.pop();
    if (known !== undefined) return known;
    const made = new Sequence(this.model, this.capacity, { thresholds: this.thresholds });
    this.#all.push(made);
    return made;
  }

  release(sequence: Sequence): void {
    sequence.rewind(0);
    this.#free.push(sequence);
  }

  [Symbol.dispose](): void {
    for (const sequence of this.#all) sequence[Symbol.dispose]();
  }
}

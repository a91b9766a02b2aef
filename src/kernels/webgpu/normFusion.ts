import type { Context } from "./context.js";
import type { GpuMemory } from "./device.js";
import type { GpuActivation, GpuVector } from "./storage.js";
import { maxTickets } from "./wgsl/matvec.js";
import { finishNorm } from "./wgsl/rmsNorm.js";

/** The sum of the squares of one row, in shares, and what is added to their mean. */
export interface Squares {
  readonly memory: GpuMemory;
  readonly count: number;
  readonly epsilon: number;
}

/** A norm that a product prepares: `out` gets x∘weight, `squares` the shares of Σx². */
export interface NextNorm {
  readonly out: GpuActivation;
  readonly weight: GpuVector;
  readonly squares: GpuMemory;
}

/** A product of one row that waits for the operation after it. */
interface Held {
  /** Its result, whole. */
  readonly out: GpuActivation;
  /** What it reads: workgroups that are still at it would see a norm written there. */
  readonly input: GpuMemory;
  /** Row tiles of its matrix. */
  readonly tiles: number;
  readonly run: (next?: NextNorm) => void;
}

/**
 * Joins a norm of one row with the products before and after it, since an operation as small as a norm costs as much as its
 * beginning and its end. A product that could be followed by a norm is held back until the next operation is known. If
 * that is the norm of its result, the product writes x∘weight and Σx², and what lacks is a factor, 1/rms: products of one
 * row put it in as they read; before anything else touches the activation it is finished by a kernel.
 */
export class NormFusion {
  #held: Held | undefined;
  readonly #unfinished = new Map<GpuMemory, { activation: GpuActivation; squares: Squares }>();
  #turn = 0;

  constructor(readonly context: Context) {
    context.recorder.beforeUse = (memories) => this.#settle(memories);
  }

  /** Takes a product that will run with the next operation, whatever that is. */
  hold(held: Held): void {
    this.#settle([]);
    this.#held = held;
  }

  /** Makes the norm of x part of the product that gave x, if that is the one that is held. @returns whether it did */
  join(out: GpuActivation, x: GpuActivation, weight: GpuVector, epsilon: number): boolean {
    const held = this.#held;
    if (held === undefined || !isSame(held.out, x) || weight.length !== x.cols) return false;
    if (out.memory === x.memory || out.memory === held.input) return false;
    this.#held = undefined;
    this.#unfinished.delete(out.memory);
    // Of one size always: what is not finished yet reads them later.
    const memory = this.context.scratch(`squares ${this.#turn}`, maxTickets * 4);
    this.#turn = 1 - this.#turn;
    for (const { activation, squares } of [...this.#unfinished.values()]) {
      if (squares.memory === memory) this.#finish(activation.memory);
    }
    held.run({ out, weight, squares: memory });
    this.#unfinished.set(out.memory, { activation: out, squares: { memory, count: held.tiles, epsilon } });
    return true;
  }

  lacksFactor(x: GpuActivation): boolean {
    const entry = this.#unfinished.get(x.memory);
    return entry !== undefined && isSame(entry.activation, x);
  }

  /** Runs a product of an `x` that lacks its factor; `run` is told from what to compute it. */
  consume(x: GpuActivation, run: (squares: Squares) => void): void {
    const entry = this.#unfinished.get(x.memory)!;
    this.#unfinished.delete(x.memory);
    run(entry.squares);
    this.#unfinished.set(x.memory, entry);
  }

  /** Before `out` is written by something that is told no buffers: what is written whole need not be finished. */
  overwrite(out: GpuActivation): void {
    if (this.lacksFactor(out)) this.#unfinished.delete(out.memory);
    else this.#settle([out.memory]);
  }

  /** What is given back need not be finished. */
  forget({ memory }: GpuActivation): void {
    this.#unfinished.delete(memory);
  }

  /** Before an operation on these buffers, or a wait: nothing is held, and none of them lacks its factor. */
  #settle(memories: readonly GpuMemory[]): void {
    const held = this.#held;
    this.#held = undefined;
    held?.run();
    if (this.#unfinished.size === 0) return;
    for (const memory of memories) if (this.#unfinished.has(memory)) this.#finish(memory);
  }

  #finish(memory: GpuMemory): void {
    const { activation, squares } = this.#unfinished.get(memory)!;
    this.#unfinished.delete(memory);
    const { offset, cols } = activation;
    this.context.recorder.run(
      finishNorm,
      { width: cols, offset, epsilon: squares.epsilon, squareCount: squares.count },
      { xs: memory, squares: squares.memory },
      [Math.ceil(cols / 64)],
    );
  }
}

const isSame = (a: GpuActivation, b: GpuActivation): boolean =>
  a.memory === b.memory && a.offset === b.offset && a.rows === b.rows && a.cols === b.cols;

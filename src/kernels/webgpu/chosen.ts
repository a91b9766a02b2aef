import { UsageError } from "../../core/index.js";
import type { Activation, Chosen, Matrix, TopK } from "../backend.js";
import { checkEmbed } from "../shapes.js";
import type { Context } from "./context.js";
import { enqueueLargest, pairBytes, pairsOf } from "./largest.js";
import { lookUp } from "./lookUp.js";
import type { GpuMatrix } from "./matrix.js";
import type { PendingRead } from "./recorder.js";
import { expanded } from "./sparseLinear.js";
import { isSparseMatrix } from "./sparseMatrix.js";
import { type ActivationPool, type GpuActivation, own } from "./storage.js";

/** The largest of every row as (id, bits) in memory of its own, on its way to the host from the beginning. */
export class GpuChosen implements Chosen {
  readonly length: number;
  readonly #pairs: GpuActivation;
  readonly #read: PendingRead;
  #taken = false;

  constructor(
    readonly context: Context,
    readonly pool: ActivationPool,
    logits: GpuActivation,
  ) {
    this.length = logits.rows;
    this.#pairs = pool.take(logits.rows, 2);
    enqueueLargest(context, logits, 1, this.#pairs.memory);
    this.#read = context.recorder.readBack(this.#pairs.memory, 0, logits.rows * pairBytes);
  }

  embed(out: Activation, table: Matrix): void {
    if (this.#taken) throw new UsageError("a choice that was read or disposed of");
    checkEmbed(out, table, this.length);
    const dense = isSparseMatrix(table) ? expanded(this.context, table) : (table as GpuMatrix);
    lookUp(this.context, own(out), dense, this.#pairs.memory);
  }

  async read(): Promise<TopK[]> {
    this.#take();
    return pairsOf(await this.#read.bytes(), this.length, 1);
  }

  [Symbol.dispose](): void {
    if (this.#taken) return;
    this.#take();
    this.#read.cancel();
  }

  /** What is enqueued by now still finds the memory as it was: it is used again only by what comes after. */
  #take(): void {
    if (this.#taken) throw new UsageError("a choice is read once");
    this.#taken = true;
    this.pool.giveBack(this.#pairs);
  }
}

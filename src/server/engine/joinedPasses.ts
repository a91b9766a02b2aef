import { breathe } from "../../core/index.js";
import type { Activation } from "../../kernels/index.js";
import type { Model } from "../../model/index.js";
import { runTogether, type Sequence } from "../../runtime/index.js";

/** Tokens that wait for a pass, and who waits for their logits. */
interface Waiting {
  readonly sequence: Sequence;
  readonly tokens: Uint32Array;
  readonly give: (logits: Activation) => void;
  readonly fail: (error: unknown) => void;
  /** No longer waits. */
  readonly taken: () => void;
}

/**
 * Tokens of several sequences in passes that the weights are read once for: what arrives while one is under way makes the next, so that
 * nobody waits for others to come.
 */
export class JoinedPasses {
  #waiting: Waiting[] = [];
  #running = false;

  constructor(
    readonly model: Model,
    /** Tokens of one pass at most. */
    readonly mostRows: number,
    readonly onPass: (pass: { tokens: number; sequences: number; elapsedMs: number }) => void,
  ) {}

  /**
   * @param signal ends the wait for a pass; one that is under way is not stopped, since others are in it
   * @returns logits f32 [tokens, logitCols] of each token, owned by the caller
   */
  run(sequence: Sequence, tokens: Uint32Array, signal?: AbortSignal): Promise<Activation> {
    return new Promise((give, fail) => {
      signal?.throwIfAborted();
      const taken = () => signal?.removeEventListener("abort", leave);
      const one: Waiting = { sequence, tokens, give, fail, taken };
      const leave = () => {
        this.#waiting = this.#waiting.filter((other) => other !== one);
        fail(signal?.reason);
      };
      signal?.addEventListener("abort", leave, { once: true });
      this.#waiting.push(one);
      if (!this.#running) void this.#loop();
    });
  }

  async #loop(): Promise<void> {
    this.#running = true;
    try {
      while (this.#waiting.length > 0) {
        // What is sent at the same time is run together.
        await breathe(undefined);
        if (this.#waiting.length > 0) await this.#pass(this.#take());
      }
    } finally {
      this.#running = false;
    }
  }

  /** Those of the same thresholds as the first, as many as fit into a pass, in the order in which they came. */
  #take(): Waiting[] {
    const [{ sequence: first }] = this.#waiting;
    const taken: Waiting[] = [];
    let rows = 0;
    // A pass over several tokens reads all of an MLP in a file, one over one token what it needs.
    const { offload } = this.model;
    const alone = offload !== undefined && offload.layout !== "experts";
    for (const one of this.#waiting) {
      if (taken.length > 0 && alone && (rows === 1 || one.tokens.length === 1)) continue;
      if (one.sequence.options.thresholds !== first.options.thresholds) continue;
      if (taken.length > 0 && rows + one.tokens.length > this.mostRows) continue;
      rows += one.tokens.length;
      taken.push(one);
    }
    this.#waiting = this.#waiting.filter((one) => !taken.includes(one));
    for (const one of taken) one.taken();
    return taken;
  }

  async #pass(taken: readonly Waiting[]): Promise<void> {
    const startMs = performance.now();
    const lengths = taken.map(({ sequence }) => sequence.length);
    let logits: readonly Activation[];
    try {
      logits = await this.#logitsOf(taken);
    } catch (error) {
      if (taken.length === 1) {
        taken[0].fail(error);
        return;
      }
      // One of them may be the reason: each is tried by itself, so that nobody's text ends for another's.
      for (const [i, one] of taken.entries()) {
        if (one.sequence.length > lengths[i]) one.sequence.rewind(lengths[i]);
        await this.#pass([one]);
      }
      return;
    }
    for (const [i, { give }] of taken.entries()) give(logits[i]);
    const tokens = taken.reduce((sum, one) => sum + one.tokens.length, 0);
    this.onPass({ tokens, sequences: taken.length, elapsedMs: performance.now() - startMs });
  }

  async #logitsOf(taken: readonly Waiting[]): Promise<Activation[]> {
    const [{ sequence, tokens }] = taken;
    if (taken.length === 1) return [await sequence.runRows(tokens)];
    const { backend } = this.model;
    const turns = taken.map((one) => ({ sequence: one.sequence, tokens: one.tokens, logits: "all" as const }));
    const { logits, firstRows } = await runTogether(turns);
    const made: Activation[] = [];
    try {
      for (const [i, one] of taken.entries()) {
        const own = backend.allocate(one.tokens.length, logits!.cols);
        made.push(own);
        backend.map(own, logits!.rowRange(firstRows[i], one.tokens.length), { f: "scale", by: 1 });
      }
      return made;
    } catch (error) {
      for (const own of made) backend.release(own);
      throw error;
    } finally {
      backend.release(logits!);
    }
  }
}

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

  /** @returns logits f32 [tokens, logitCols] of each token, owned by the caller */
  run(sequence: Sequence, tokens: Uint32Array): Promise<Activation> {
    return new Promise((give, fail) => {
      this.#waiting.push({ sequence, tokens, give, fail });
      if (!this.#running) void this.#loop();
    });
  }

  async #loop(): Promise<void> {
    this.#running = true;
    try {
      while (this.#waiting.length > 0) {
        // What is sent at the same time is run together.
        await breathe(undefined);
        await this.#pass(this.#take());
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
    return taken;
  }

  async #pass(taken: readonly Waiting[]): Promise<void> {
    const startMs = performance.now();
    const { backend } = this.model;
    try {
      if (taken.length === 1) {
        const [{ sequence, tokens, give }] = taken;
        give(await sequence.runRows(tokens));
      } else {
        const turns = taken.map(({ sequence, tokens }) => ({ sequence, tokens, logits: "all" as const }));
        const { logits, firstRows } = await runTogether(turns);
        try {
          for (const [i, { tokens, give }] of taken.entries()) {
            const own = backend.allocate(tokens.length, logits!.cols);
            backend.map(own, logits!.rowRange(firstRows[i], tokens.length), { f: "scale", by: 1 });
            give(own);
          }
        } finally {
          backend.release(logits!);
        }
      }
    } catch (error) {
      for (const { fail } of taken) fail(error);
    }
    const tokens = taken.reduce((sum, one) => sum + one.tokens.length, 0);
    this.onPass({ tokens, sequences: taken.length, elapsedMs: performance.now() - startMs });
  }
}

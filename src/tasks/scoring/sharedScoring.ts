import { breathe, type JobOptions, Stage } from "../../core/index.js";
import { type LogitRows, rowsPerChunk, withLogSumExp } from "../../eval/internal.js";
import { explainNonFinite, firstNonFiniteOf, type Model, type PassThresholds } from "../../model/index.js";
import { mostPassRows } from "../../model/internal.js";
import { type PrefillPolicy, runTogether, type Sequence, sparseFromPosition } from "../../runtime/index.js";
import type { LogLikelihood } from "../metrics/metrics.js";
import type { TokenRequest } from "./encodeRequests.js";
import type { ScoringWork } from "./scorer.js";
import { SequencePool } from "./sequencePool.js";

/** Rows of a pass over several texts: about as many as make full use of the weights that it reads. */
const passRows = 256;
/** Contexts that have fewer tokens in common begin anew. */
const worthSharing = 16;

/** Continuations of one context. */
interface Group {
  context: Uint32Array;
  /** Tokens that are run behind the context, each with the requests that read their predictions. */
  tails: { tokens: Uint32Array; requests: number[] }[];
}

/** A part of a text that is run in a sequence. */
interface Piece {
  sequence: Sequence;
  tokens: Uint32Array;
  /** Whether thresholds do not apply. */
  dense: boolean;
  /** Told of every row of logits, by its place among the tokens. */
  onRow?(at: number, logits: LogitRows, row: number): void;
  logits: "all" | "last" | "none";
}

/**
 * Scores continuations where nothing that was run is ever thrown away. Each context is run once for all its continuations, what
 * neighbouring contexts begin with once for all of them, and passes are filled with rows of several texts.
 */
export class SharedScoring {
  readonly #rows: number;
  readonly #logitRows: number;

  constructor(
    readonly model: Model,
    readonly thresholds: PassThresholds,
    readonly prefill: PrefillPolicy,
    readonly work: ScoringWork,
  ) {
    this.#rows = mostPassRows(model.config.spec, passRows);
    this.#logitRows = Math.min(this.#rows, rowsPerChunk(model.config.vocabSize));
  }

  /** @returns of each request, in order */
  async score(requests: readonly TokenRequest[], { signal, onProgress }: JobOptions): Promise<LogLikelihood[]> {
    const results = requests.map((): LogLikelihood => ({ logLikelihood: 0, isGreedy: true }));
    if (requests.length === 0) return results;
    const stage = new Stage("score", requests.length, "continuations", onProgress);
    const longest = Math.max(...requests.map(({ context, continuation }) => context.length + continuation.length - 1));
    using pool = new SequencePool(this.model, longest, this.thresholds);
    const trunk = pool.acquire();
    const groups = groupsOf(requests);
    for (let at = 0; at < groups.length; ) {
      const batch = this.#batch(groups, at, trunk, pool);
      at += batch.length;
      const shared = await this.#runShared(batch, groups[at], trunk, signal);
      await this.#scoreBatch(batch, shared, trunk, pool, requests, results, signal);
      stage.advance(
        batch.reduce((sum, { tails }) => sum + tails.reduce((all, tail) => all + tail.requests.length, 0), 0),
      );
    }
    for (const { context, continuation } of requests) this.work.tokensAlone += context.length + continuation.length - 1;
    return results;
  }

  /** Groups from `at` on that fill a pass and for which there are sequences. */
  #batch(groups: readonly Group[], at: number, trunk: Sequence, pool: SequencePool): Group[] {
    const batch: Group[] = [];
    // Half of the sequences are for what comes behind the contexts.
    const most = Math.max(1, pool.free >> 1);
    let rows = 0;
    for (const group of groups.slice(at, at + most)) {
      const shared = commonLength(group.context, batch[0]?.context ?? Uint32Array.from(trunk.tokens));
      const own = group.context.length - (shared >= worthSharing ? shared : 0);
      if (batch.length > 0 && rows + own > this.#rows) break;
      rows += own;
      batch.push(group);
    }
    return batch;
  }

  async #scoreBatch(
    batch: readonly Group[],
    shared: number,
    trunk: Sequence,
    pool: SequencePool,
    requests: readonly TokenRequest[],
    results: LogLikelihood[],
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const add = (request: number, place: number, logits: LogitRows, row: number) => {
      const target = requests[request].continuation[place];
      const begin = row * logits.stride;
      const value = logits.values[begin + target];
      const result = results[request];
      result.logLikelihood += value - logits.logSumExp[row];
      for (let i = 0; i < logits.vocabSize && result.isGreedy; i++) {
        const other = logits.values[begin + i];
        if (other > value || (other === value && i < target)) result.isGreedy = false;
      }
    };
    const sequences = batch.map(() => pool.acquire());
    try {
      const pieces: Piece[] = batch.flatMap(({ context, tails }, g) => {
        if (shared > 0) sequences[g].copyFrom(trunk, shared);
        const readers = tails.flatMap((tail) => tail.requests);
        return this.#contextPieces(sequences[g], context, shared, (logits, row) => {
          for (const request of readers) add(request, 0, logits, row);
        });
      });
      await this.#run(pieces, signal);
      await this.#runTails(batch, sequences, pool, add, signal);
    } finally {
      for (const sequence of sequences) pool.release(sequence);
    }
  }

  /**
   * Runs what all contexts of a batch begin with, or the only one and the next, as far as it has not been.
   * @returns its length
   */
  async #runShared(
    batch: readonly Group[],
    next: Group | undefined,
    trunk: Sequence,
    signal: AbortSignal | undefined,
  ): Promise<number> {
    const [first, ...rest] = batch.map(({ context }) => context);
    const others = rest.length === 0 && next !== undefined ? [next.context] : rest;
    // Where it depends on the length of a text which of its tokens are sparse, no beginning is like another.
    if (this.thresholds !== "dense" && this.prefill === "secondHalf") return 0;
    // The last token of a context is run with it, for its logits.
    const most = others.reduce((length, other) => Math.min(length, commonLength(first, other)), first.length - 1);
    const known = Math.min(most, commonLength(first, Uint32Array.from(trunk.tokens)));
    const shared = Math.min(first.length - 1, others.length > 0 ? most : known);
    if (shared < worthSharing) return 0;
    if (trunk.length > known) trunk.rewind(known);
    if (trunk.length < shared) {
      const pieces = this.#contextPieces(trunk, first.subarray(0, shared), trunk.length).map(
        (piece): Piece => ({ ...piece, logits: "none" }),
      );
      await this.#run(pieces, signal);
    }
    return shared;
  }

  /** What is left of a context behind its first tokens, its dense part before its sparse one. */
  #contextPieces(
    sequence: Sequence,
    context: Uint32Array,
    done: number,
    onLast?: (logits: LogitRows, row: number) => void,
  ): Piece[] {
    const sparseFrom = this.thresholds === "dense" ? 0 : sparseFromPosition(this.prefill, context.length);
    const cut = Math.min(context.length, Math.max(done, sparseFrom));
    const parts = [
      { tokens: context.subarray(done, cut), dense: true },
      { tokens: context.subarray(cut), dense: false },
    ].filter(({ tokens }) => tokens.length > 0);
    return parts.map(({ tokens, dense }, i): Piece => {
      const last = i === parts.length - 1;
      const onRow = (_at: number, logits: LogitRows, row: number) => onLast?.(logits, row);
      return { sequence, tokens, dense, logits: last && onLast ? "last" : "none", onRow };
    });
  }

  /** Runs what comes behind the contexts: the only one of a context in its own sequence, others in copies. */
  async #runTails(
    batch: readonly Group[],
    sequences: readonly Sequence[],
    pool: SequencePool,
    add: (request: number, place: number, logits: LogitRows, row: number) => void,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const left = batch.flatMap(({ tails, context }, g) => {
      const behind = tails.filter(({ tokens }) => tokens.length > 0);
      return behind.map((tail, i) => ({
        ...tail,
        from: sequences[g],
        length: context.length,
        last: i === behind.length - 1,
      }));
    });
    while (left.length > 0) {
      const copies: Sequence[] = [];
      const pieces: Piece[] = [];
      try {
        let rows = 0;
        while (left.length > 0) {
          const [{ tokens, requests, from, length, last }] = left;
          if (pieces.length > 0 && (rows + tokens.length > this.#logitRows || (!last && pool.free === 0))) break;
          left.shift();
          let sequence = from;
          if (!last) {
            sequence = pool.acquire();
            copies.push(sequence);
            sequence.copyFrom(from, length);
          }
          rows += tokens.length;
          const onRow = (at: number, logits: LogitRows, row: number) => {
            for (const request of requests) add(request, at + 1, logits, row);
          };
          pieces.push({ sequence, tokens, dense: false, logits: "all", onRow });
        }
        await this.#run(pieces, signal);
      } finally {
        for (const copy of copies) pool.release(copy);
      }
    }
  }

  /** Runs pieces, those of one sequence one after the other, in passes over several of them. */
  async #run(pieces: readonly Piece[], signal: AbortSignal | undefined): Promise<void> {
    let left = pieces.map((piece) => ({ ...piece, done: 0 }));
    while (left.length > 0) {
      await breathe(signal);
      const taken = new Set<Sequence>();
      const turns: { piece: (typeof left)[number]; count: number }[] = [];
      let [rows, logitRows] = [0, 0];
      for (const piece of left) {
        const { sequence, tokens, logits, done } = piece;
        if (taken.has(sequence)) continue;
        const room = Math.min(
          this.#rows - rows,
          logits === "all" ? this.#logitRows - logitRows : Number.POSITIVE_INFINITY,
        );
        if (room <= 0 || (logits === "last" && logitRows >= this.#logitRows)) continue;
        const count = Math.min(tokens.length - done, room);
        taken.add(sequence);
        turns.push({ piece, count });
        rows += count;
        if (logits === "all") logitRows += count;
        else if (logits === "last" && done + count === tokens.length) logitRows++;
      }
      await this.#pass(turns);
      left = left.filter(({ tokens, done }) => done < tokens.length);
    }
  }

  async #pass(turns: readonly { piece: Piece & { done: number }; count: number }[]): Promise<void> {
    const { model } = this;
    const asked = turns.map(({ piece: { sequence, tokens, dense, logits, done }, count }) => ({
      sequence,
      tokens: tokens.subarray(done, done + count),
      dense,
      logits: logits === "last" && done + count < tokens.length ? ("none" as const) : logits,
    }));
    const { logits, firstRows } = await runTogether(asked);
    this.work.tokensRun += asked.reduce((sum, { tokens }) => sum + tokens.length, 0);
    if (logits === undefined) await model.backend.flush();
    else {
      try {
        const values = await model.backend.read(logits);
        if (firstNonFiniteOf(values) >= 0) throw await explainNonFinite(model, asked[0].tokens);
        const rows = withLogSumExp(values, logits.cols, model.config.vocabSize);
        for (const [t, { piece, count }] of turns.entries()) {
          if (asked[t].logits === "none") continue;
          const many = asked[t].logits === "all" ? count : 1;
          for (let i = 0; i < many; i++) piece.onRow?.(piece.done + i, rows, firstRows[t] + i);
        }
      } finally {
        model.backend.release(logits);
      }
    }
    for (const { piece, count } of turns) piece.done += count;
  }
}

/** Requests by their contexts, in the order of their tokens, so that neighbours begin alike. */
function groupsOf(requests: readonly TokenRequest[]): Group[] {
  const groups = new Map<string, Group & { byTail: Map<string, Group["tails"][number]> }>();
  for (const [r, { context, continuation }] of requests.entries()) {
    const key = context.join();
    let group = groups.get(key);
    if (group === undefined) {
      group = { context, tails: [], byTail: new Map() };
      groups.set(key, group);
    }
    const tokens = continuation.subarray(0, -1);
    const tailKey = tokens.join();
    let tail = group.byTail.get(tailKey);
    if (tail === undefined) {
      tail = { tokens, requests: [] };
      group.byTail.set(tailKey, tail);
      group.tails.push(tail);
    }
    tail.requests.push(r);
  }
  return Array.from(groups.values()).sort((a, b) => compareTokens(a.context, b.context));
}

function compareTokens(a: Uint32Array, b: Uint32Array): number {
  const at = commonLength(a, b);
  return (a[at] ?? -1) - (b[at] ?? -1);
}

function commonLength(a: Uint32Array, b: Uint32Array): number {
  const most = Math.min(a.length, b.length);
  let at = 0;
  while (at < most && a[at] === b[at]) at++;
  return at;
}

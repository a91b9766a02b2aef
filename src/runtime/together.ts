import { UsageError } from "../core/index.js";
import type { Activation } from "../kernels/index.js";
import type { SequencePart } from "../model/index.js";
import type { Sequence } from "./sequence.js";

/** Tokens of one sequence for `runTogether`. */
export interface TogetherTurn {
  sequence: Sequence;
  /** At most `sequence.passRows(tokens.length + left)`. */
  tokens: Uint32Array;
  /** Tokens of the same text that are to be run after these; default 0. */
  left?: number;
  /** Whether the thresholds of the sequence do not apply: those of a prompt that is run dense. */
  dense?: boolean;
  /** Of which of the tokens logits are wanted; default the last. */
  logits?: SequencePart["logits"];
}

/** What came out of `runTogether`. */
export interface TogetherLogits {
  /** f32 [rows asked for, logitCols], owned by the caller; undefined where none were. */
  logits: Activation | undefined;
  /** By turn, its first row; the next ones of it follow. */
  firstRows: number[];
}

/**
 * Runs tokens of several sequences of one model in one pass, so that the weights are read once for all of them: some may be in
 * their prompt while others go on token by token (continuous batching, Orca, OSDI 2022; chunked prefill, arXiv 2308.16369). Each has its own adapters.
 * @param turns of sequences with the same thresholds, each once
 * @throws UsageError for other turns, for a sequence without room, and as `Model.forward`
 */
export async function runTogether(turns: readonly TogetherTurn[]): Promise<TogetherLogits> {
  if (turns.length === 0) throw new UsageError("no tokens to run");
  const [{ sequence: first }] = turns;
  for (const { sequence, tokens } of turns) {
    if (sequence.model !== first.model || sequence.options.thresholds !== first.options.thresholds) {
      throw new UsageError("sequences that are run together have one model and the same thresholds");
    }
    if (sequence.length + tokens.length > sequence.capacity) {
      throw new UsageError(`${sequence.length} + ${tokens.length} tokens in a sequence of ${sequence.capacity}`);
    }
  }
  // Thresholds apply from one row on; rows of one adapter are multiplied with it together.
  const rank = ({ dense = false, sequence: { options } }: TogetherTurn): number[] => {
    return [dense ? 0 : 1, turns.findIndex(({ sequence }) => sequence.options.adapters === options.adapters)];
  };
  const ranks = turns.map(rank);
  const order = [...turns.keys()].sort((a, b) => ranks[a][0] - ranks[b][0] || ranks[a][1] - ranks[b][1]);
  const inOrder = order.map((at) => turns[at]);
  const parts = inOrder.map(({ sequence, tokens, logits = "last" }) => sequence.partOf(tokens, logits));
  const denseRows = inOrder.reduce((sum, { dense, tokens }) => sum + (dense ? tokens.length : 0), 0);
  const logits = await first.model.forwardTogether(parts, {
    thresholds: first.options.thresholds,
    sparseFromRow: denseRows,
  });
  const firstRows: number[] = [];
  let row = 0;
  for (const [i, { sequence, tokens, left = 0, logits = "last" }] of inOrder.entries()) {
    firstRows[order[i]] = row;
    row += { all: tokens.length, last: 1, none: 0 }[logits];
    await sequence.ranTogether(tokens, left);
  }
  return { logits, firstRows };
}

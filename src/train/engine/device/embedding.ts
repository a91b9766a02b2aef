import type { DeviceMemory } from "../../../kernels/internal.js";
import { addRows, lookUp } from "./elementKernels.js";
import type { Place } from "./layout.js";
import type { Memories } from "./memories.js";
import type { Operations } from "./operations.js";

/** Tokens of a batch on the device, and where each token stands. */
export interface TokenMemory {
  tokens: DeviceMemory;
  /** See `placesOf`. */
  order: DeviceMemory;
  starts: DeviceMemory;
}

export const allocateTokens = (memories: Memories, tokens: number): TokenMemory => ({
  tokens: memories.allocate(tokens, "tokens"),
  order: memories.allocate(2 * tokens, "order"),
  starts: memories.allocate(4 * tokens + 4, "starts"),
});

/** The places of every token that occurs, in pieces of at most `pieceLength`: no thread adds up a long list. */
export interface TokenPlaces {
  /** Places by token, then the numbers of the pieces. */
  order: Uint32Array;
  /** Pairs [where in `order` it begins, row of the result]: of every piece and an end, then of every token and an end. */
  starts: Uint32Array;
  pieces: number;
  distinct: number;
}

const pieceLength = 64;

/** Lists places by counting. */
export function placesOf(ids: ArrayLike<number>): TokenPlaces {
  let vocabulary = 0;
  for (let place = 0; place < ids.length; place++) vocabulary = Math.max(vocabulary, ids[place] + 1);
  const next = new Uint32Array(vocabulary + 1);
  for (let place = 0; place < ids.length; place++) next[ids[place] + 1]++;
  const pieces: number[] = [];
  const tokens: number[] = [];
  for (let id = 0, at = 0; id < vocabulary; id++) {
    const end = at + next[id + 1];
    if (end > at) tokens.push(ids.length + pieces.length / 2, id);
    for (let from = at; from < end; from += pieceLength) pieces.push(from, pieces.length / 2);
    next[id + 1] = at = end;
  }
  const count = pieces.length / 2;
  const order = new Uint32Array(ids.length + count);
  for (let place = 0; place < ids.length; place++) order[next[ids[place]]++] = place;
  for (let piece = 0; piece < count; piece++) order[ids.length + piece] = piece;
  const starts = Uint32Array.from([...pieces, ids.length, 0, ...tokens, order.length, 0]);
  return { order, starts, pieces: count, distinct: tokens.length / 2 };
}

/** A table of rows by token, forward and backward. */
export class Embedding {
  constructor(
    readonly operations: Operations,
    readonly table: Place,
    readonly memory: TokenMemory,
    readonly scale = 1,
  ) {}

  /** x [tokens, cols] = scale · rows of the table. */
  forward(x: DeviceMemory): void {
    const { operations, table, memory, scale } = this;
    const width = table.cols / 4;
    const { weights } = operations.model;
    const params = { count: operations.rows * width, width, table: table.offset / 4, scale };
    operations.elements(lookUp, params, { x, weights, tokens: memory.tokens });
  }

  /** Adds dL/dx to the gradient of the table. Sums have one order, so a run is the same each time. @param scratch like x */
  backward(x: DeviceMemory, { pieces, distinct }: TokenPlaces, scratch: DeviceMemory): void {
    const { operations, table, memory, scale } = this;
    const width = table.cols / 4;
    const { order, starts } = memory;
    operations.elements(
      addRows,
      { count: pieces * width, width, result: 0, first: 0, accumulate: 0, scale: 1 },
      { sums: scratch, x, order, starts },
    );
    operations.elements(
      addRows,
      { count: distinct * width, width, result: table.offset / 4, first: pieces + 1, accumulate: 1, scale },
      { sums: operations.model.gradients, x: scratch, order, starts },
    );
  }
}

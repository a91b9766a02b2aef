import type { KvEviction } from "./policy.js";

/** A token that is held. */
interface HeldToken {
  /** Where it was run. */
  readonly position: number;
  /** What its key counts as: its position, until tokens are renumbered. */
  turn: number;
  slot: number;
}

const none: ReadonlySet<number> = new Set();

/** Which tokens one key head holds. */
export class HeldTokens {
  /** Oldest first. */
  #tokens: HeldToken[] = [];

  constructor(readonly eviction: KvEviction) {}

  get length(): number {
    return this.#tokens.length;
  }

  /** What the key of each slot counts as. */
  turns(): Int32Array {
    const turns = new Int32Array(this.length);
    for (const { slot, turn } of this.#tokens) turns[slot] = turn;
    return turns;
  }

  /** What the next token's key counts as. */
  get nextTurn(): number {
    return (this.#tokens.at(-1)?.turn ?? -1) + 1;
  }

  /** Tokens that a pass put behind those that are held. */
  append(position: number, rows: number): void {
    const [turn, slot] = [this.nextTurn, this.length];
    for (let r = 0; r < rows; r++) this.#tokens.push({ position: position + r, turn: turn + r, slot: slot + r });
  }

  /** Keeps those before `position`; only while nothing was thrown away. */
  truncate(position: number): void {
    this.#tokens = this.#tokens.filter((token) => token.position < position);
  }

  /**
   * Lets the policy throw away what is too much.
   * @param mass by slot @param run tokens that the sequence has run @param budget tokens that may stay
   * @param dropped slots of tokens that the model no longer sees
   * @returns moves that close the gaps
   */
  evict(
    mass: Float32Array | undefined,
    run: number,
    budget = this.eviction.budget,
    dropped: ReadonlySet<number> = none,
  ): { from: number; to: number }[] {
    if (this.length <= budget) return [];
    const held = {
      positions: Int32Array.from(this.#tokens, ({ position }) => position),
      mass: Float32Array.from(this.#tokens, ({ slot }) => mass?.[slot] ?? 0),
      dropped: this.#tokens.map(({ slot }) => dropped.has(slot)),
      budget,
      run,
    };
    const gone = new Set(this.eviction.evict(held));
    const free = [...gone].map((i) => this.#tokens[i].slot).filter((slot) => slot < budget);
    this.#tokens = this.#tokens.filter((_, i) => !gone.has(i));
    if (this.length !== budget) throw new Error(`${this.length} tokens held after eviction to ${budget}`);
    return this.#tokens
      .filter(({ slot }) => slot >= budget)
      .map((token, i) => {
        const move = { from: token.slot, to: free[i] };
        token.slot = move.to;
        return move;
      });
  }

  /**
   * Lets tokens count as following one another, in their order, up to the turn of the newest, or from 0 on where that is
   * beyond `most`.
   * @returns slots whose keys are to be turned, and by how much
   */
  renumber(most: number): { slot: number; by: number }[] {
    const after = this.nextTurn;
    const base = after > most ? 0 : after - this.length;
    const turned: { slot: number; by: number }[] = [];
    for (const [rank, token] of this.#tokens.entries()) {
      const by = base + rank - token.turn;
      if (by !== 0) turned.push({ slot: token.slot, by });
      token.turn = base + rank;
    }
    return turned;
  }
}

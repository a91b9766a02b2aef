/** What was seen of tokens behind the layers of a model. */
export interface Looks {
  readonly tokens: number;
  /** Behind how many layers was looked, ascending. */
  readonly layers: readonly number[];
  /** Of each of those, f32 [tokens]: the probability of the most probable token, and how far it is ahead of the second. */
  readonly top: readonly Float32Array[];
  readonly gap: readonly Float32Array[];
  /** Of each, 1 where its most probable token is that behind the last layer: a token may leave there. */
  readonly agrees: readonly Uint8Array[];
}

/** A line between gap and top: a token may leave where gap · g + top · t + bias is above 0. */
export interface ExitLine {
  gap: number;
  top: number;
  bias: number;
}

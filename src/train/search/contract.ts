import type { Random } from "../../core/index.js";

/** A point of the search and the loss there. */
export interface Candidate {
  /** f64 [dimensions] */
  readonly point: Float64Array;
  readonly value: number;
}

/** Where to look. */
export interface SearchSpace {
  /** Every coordinate lies in [−bound, bound]. */
  readonly bound: number;
  readonly random: Random;
}

/** A way to look for the smallest value of a function without its gradient. One file, one line in index.ts. */
export interface Search {
  id: string;
  title: string;
  paper: string;
  /** Yields the points to look at and is given the value of each; whoever runs it decides when it is enough. */
  points(start: Candidate, space: SearchSpace): Generator<Float64Array, never, number>;
}

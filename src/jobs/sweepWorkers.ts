import type { JobQueue } from "./jobQueue.js";

/** How a worker comes to the tokens of a text that it has itself. */
export interface JobText {
  /** As `jobPath` makes it. */
  path: string;
  /** Tokens that are wanted from its start. Default: all. */
  maxTokens?: number;
  /** Tokens of a window; each begins with the begin-of-text token. Default: none does. */
  beginWindows?: number;
  /** SHA-256 of its tokens. */
  tokensSha256: string;
}

/** Who makes and measures the candidates of a sweep, and under which names they find what they need. */
export interface SweepWorkers {
  queue: JobQueue;
  /** The source, as `jobPath` makes it. */
  model: string;
  evaluation: JobText;
  calibration?: JobText;
}

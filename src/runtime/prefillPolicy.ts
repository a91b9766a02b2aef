import { UsageError } from "../core/index.js";

/**
 * What activation thresholds do while a prompt is read; generated tokens always see them. `dense`: nothing (default).
 * `secondHalf`: the first ⌈T/2⌉ of T prompt tokens stay dense, as in TEAL's published evaluation (arXiv 2408.14690).
 * `denseFirst`: that many tokens stay dense; the first ones serve as attention sinks.
 */
export type PrefillPolicy = "dense" | "secondHalf" | { denseFirst: number };

/** First position of the prompt that sees the thresholds. Of the whole prompt, however it is cut into chunks. */
export function sparseFromPosition(policy: PrefillPolicy, promptLength: number): number {
  if (policy === "dense") return promptLength;
  if (policy === "secondHalf") return promptLength - Math.floor(promptLength / 2);
  const { denseFirst } = policy;
  if (!Number.isSafeInteger(denseFirst) || denseFirst < 0) throw new UsageError(`denseFirst is ${denseFirst}`);
  return denseFirst;
}

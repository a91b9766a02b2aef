import { UsageError } from "../../core/index.js";
import type { Document } from "../documents/document.js";
import { PythonRandom } from "../pythonRandom.js";

/** Draws the examples that stand in front of a question. */
export type DrawExamples = (question: Document) => readonly Document[];

/**
 * Draws examples as lm-evaluation-harness does: `default` at random, one draw after the other from one generator, `first_n` from
 * the start of the pool.
 * @param leaveOut whether the question itself, where it is in the pool, is never an example
 * @throws UsageError when the pool is too small
 */
export function exampleDrawer(
  pool: readonly Document[],
  {
    count,
    sampler,
    seed,
    leaveOut,
    task,
  }: { count: number; sampler: "default" | "first_n"; seed: number; leaveOut: boolean; task: string },
): DrawExamples {
  if (count === 0) return () => [];
  const needed = leaveOut && sampler === "default" ? count + 1 : count;
  if (pool.length < needed) throw new UsageError(`${task}: ${count} examples of a pool of ${pool.length} documents`);
  const texts = new Map(pool.map((document) => [document, JSON.stringify(document)]));
  const others = (documents: readonly Document[], question: Document) => {
    if (!leaveOut) return documents;
    const own = texts.get(question) ?? JSON.stringify(question);
    return documents.filter((document) => texts.get(document) !== own);
  };
  if (sampler === "first_n") {
    return (question) => {
      const left = others(pool.slice(0, needed + 1), question);
      if (left.length >= count) return left.slice(0, count);
      return others(pool, question).slice(0, count);
    };
  }
  const random = new PythonRandom(seed);
  return (question) => {
    const drawn = others(random.sample(pool, needed), question).slice(0, count);
    // A pool that has the question twice may have given both.
    return drawn.length === count ? drawn : random.sample(others(pool, question), count);
  };
}

import type { Backend, MorphemeScoreOptions } from "./backend.js";
import { check } from "./shapes.js";

/** Numbers behind each morpheme of a term: one for all digits but the last. */
export const morphemeRun = ({ order, width }: Pick<MorphemeScoreOptions, "order" | "width">): number =>
  width ** (order - 1);

/**
 * Bytes that `morphemeScores` reads once, whatever the number of rows.
 * @throws UsageError for operands that do not fit together
 */
export function morphemeBytes(...[out, x, table, index, options]: Parameters<Backend["morphemeScores"]>): number {
  const { scale, order, morphemes, width, rank } = options;
  const sizes = [order, morphemes, width, rank];
  const say = (holds: boolean, problem: () => string) => check("morphemeScores", holds, problem);
  say(
    sizes.every((size) => Number.isSafeInteger(size) && size > 0),
    () => `sizes of ${sizes.join(", ")}`,
  );
  say(order === 1 || width % 4 === 0, () => `vectors of ${width}; only multiples of 4 can be run`);
  say(table.length === rank * morphemes * width, () => `a table of ${table.length} numbers`);
  say(index.length === out.cols * order, () => `${index.length} morphemes for ${out.cols} rows of ${order}`);
  say(scale === undefined || scale.length === out.cols, () => `${scale!.length} scales for ${out.cols} rows`);
  const needed = rank * morphemes * morphemeRun(options);
  say(
    out.rows === x.rows && x.cols >= needed,
    () => `${x.rows} rows of ${x.cols} columns, of ${needed}, into ${out.rows}`,
  );
  return 4 * (table.length + index.length + (scale?.length ?? 0));
}

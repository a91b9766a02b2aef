import type { ResultRow } from "../eval/index.js";
import { speedRatio } from "../eval/internal.js";
import type { Run } from "./data.js";
import { change, megabytes, times } from "./numbers.js";

interface Measured {
  name: string;
  row: ResultRow & { perplexity: number };
}

/**
 * What candidates cost beside their source and what they give, in sentences of the table's own figures: of the one that loses
 * least, and of the smallest and the fastest where they are others. Speeds whose ranges meet are no claim, nor are sizes that look
 * alike. Empty where there is nothing to compare with.
 */
export function summaryOf({ source, candidates }: Run): string[] {
  if (source?.perplexity === undefined) return [];
  const measured = candidates.flatMap(({ name, row }): Measured[] =>
    row?.perplexity === undefined ? [] : [{ name, row: { ...row, perplexity: row.perplexity } }],
  );
  if (measured.length === 0) return [];
  const [best] = measured.toSorted((a, b) => a.row.perplexity - b.row.perplexity);
  const told = [best];
  const sentences = [`${measured.length === 1 ? "" : "Loses least: "}${account(best, source)}`];
  const others: [string, Measured | undefined][] = [
    ["Smallest", smallest(measured)],
    ["Fastest", fastest(measured, source)],
  ];
  for (const [what, one] of others) {
    if (one === undefined || told.includes(one)) continue;
    told.push(one);
    sentences.push(`${what}: ${account(one, source)}`);
  }
  return sentences;
}

/** "wanda-0.5: perplexity 30.00 → 34.00 (+13.3 %), 0.60 × the size on disk, 1.40 × the speed of decoding." */
function account({ name, row }: Measured, source: ResultRow): string {
  const before = source.perplexity!;
  const parts = [
    `perplexity ${before.toFixed(2)} → ${row.perplexity.toFixed(2)} (${change(row.perplexity / before - 1)})`,
  ];
  const size = times(row.bytesOnDisk, source.bytesOnDisk);
  if (size !== "") parts.push(size === "1.00 ×" ? "as large on disk" : `${size} the size on disk`);
  const faster = speedRatio(row, source);
  if (faster !== undefined) parts.push(`${times(faster, 1)} the speed of decoding`);
  else if (row.decodeTokensPerSecond !== undefined && source.decodeTokensPerSecond !== undefined) {
    parts.push("no difference in the speed of decoding");
  }
  return `${name}: ${parts.join(", ")}.`;
}

/** Undefined where several look equally small. */
function smallest(measured: readonly Measured[]): Measured | undefined {
  const known = measured.filter(({ row }) => row.bytesOnDisk !== undefined);
  const [first, second] = known.toSorted((a, b) => a.row.bytesOnDisk! - b.row.bytesOnDisk!);
  const alike = second !== undefined && megabytes(first.row.bytesOnDisk) === megabytes(second.row.bytesOnDisk);
  return alike ? undefined : first;
}

/** Undefined where it is no faster than the source, or not faster than each of the others beyond doubt. */
function fastest(measured: readonly Measured[], source: ResultRow): Measured | undefined {
  const isFaster = (row: ResultRow, of: ResultRow) => (speedRatio(row, of) ?? 0) > 1;
  return measured.find(
    (one) =>
      isFaster(one.row, source) &&
      measured.every(({ row }) => row === one.row || row.decodeTokensPerSecond === undefined || isFaster(one.row, row)),
  );
}

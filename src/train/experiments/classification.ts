import { breathe, type JobOptions, Stage } from "../../core/index.js";
import { type LabelledText, parseLabelledText } from "../data/labelledText.js";
import { rowsOf, takeRows } from "../data/rows.js";
import type { Batch } from "../objective.js";
import type { Training } from "../training.js";
import type { ExperimentTexts } from "./contract.js";

/** Rows of the file that holds a part of a data set. */
export async function readLabelled(dataset: string, part: string, readText: ExperimentTexts): Promise<LabelledText[]> {
  const file = `${dataset}.${part}.tsv`;
  return parseLabelledText(await readText(file), file);
}

/** The classes of some texts, in their order. */
export const labelsOf = (texts: readonly LabelledText[]): string[] =>
  [...new Set(texts.map(({ label }) => label))].sort();

/** The encoder takes the tokens of all documents in one row. */
export function flat({ tokens, label }: Batch): Batch {
  return { tokens: { shape: [tokens.values.length], values: tokens.values }, label };
}

/**
 * Per cent of the texts of which the largest logit is that of their class.
 * @param steering arrays that the model needs beside the texts
 */
export async function accuracy(
  training: Training,
  data: Batch,
  batchSize: number,
  classes: number,
  { signal, onProgress, steering }: JobOptions & { steering?: Batch },
): Promise<number> {
  const rows = rowsOf(data);
  const stage = new Stage("evaluate", rows, "texts", onProgress);
  let right = 0;
  for (let from = 0; from < rows; from += batchSize) {
    await breathe(signal);
    // The last batch is filled up with its first row: another shape would be compiled anew.
    const indices = Array.from({ length: batchSize }, (_, i) => (from + i < rows ? from + i : from));
    const logits = await training.predict({ ...flat(takeRows(data, indices)), ...steering });
    const count = Math.min(batchSize, rows - from);
    for (let i = 0; i < count; i++) {
      const row = logits.subarray(i * classes, (i + 1) * classes);
      if (row.indexOf(Math.max(...row)) === data.label.values[from + i]) right++;
    }
    stage.advance(count);
  }
  return (100 * right) / rows;
}

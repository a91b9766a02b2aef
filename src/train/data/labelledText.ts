import { FormatError } from "../../core/index.js";
import type { Batch } from "../objective.js";

/** A text and what it is. */
export interface LabelledText {
  label: string;
  text: string;
}

/** Rows of a TSV file with the header "label	text". @throws FormatError naming the line */
export function parseLabelledText(content: string, file: string): LabelledText[] {
  const [header, ...lines] = content.split(/\r?\n/);
  if (header !== "label\ttext") {
    throw new FormatError({ file, problem: "the first line is not the header", expected: '"label<tab>text"' });
  }
  return lines.flatMap((line, i) => {
    if (line === "") return [];
    const at = line.indexOf("\t");
    if (at < 1) throw new FormatError({ file, field: `line ${i + 2}`, problem: "no label before a tab" });
    return [{ label: line.slice(0, at), text: line.slice(at + 1) }];
  });
}

export const wordsOf = (text: string): string[] => text.toLowerCase().match(/[\p{L}\p{N}']+|[^\s\p{L}\p{N}']/gu) ?? [];

/** Words by id: 0 is filling, 1 any word that is not known. */
export class Vocabulary {
  readonly #ids = new Map<string, number>();

  /** The words that occur at least `minCount` times, the commonest first, at most `size` ids in all. */
  constructor(texts: Iterable<string>, size: number, minCount = 2) {
    const counts = new Map<string, number>();
    for (const text of texts) for (const word of wordsOf(text)) counts.set(word, (counts.get(word) ?? 0) + 1);
    const common = [...counts].filter(([, count]) => count >= minCount);
    common.sort(([a, x], [b, y]) => y - x || (a < b ? -1 : 1));
    for (const [word] of common.slice(0, size - 2)) this.#ids.set(word, this.#ids.size + 2);
  }

  get size(): number {
    return this.#ids.size + 2;
  }

  /** The first `length` words, filled up with 0. */
  encode(text: string, length: number): Int32Array {
    const ids = new Int32Array(length);
    for (const [i, word] of wordsOf(text).slice(0, length).entries()) ids[i] = this.#ids.get(word) ?? 1;
    return ids;
  }
}

/** `tokens` int32 [rows, length] and `label` int32 [rows]. @throws FormatError on a label not in `labels` */
export function classificationData(
  rows: readonly LabelledText[],
  labels: readonly string[],
  vocabulary: Vocabulary,
  length: number,
  file: string,
): Batch {
  const tokens = new Int32Array(rows.length * length);
  const label = new Int32Array(rows.length);
  for (const [i, row] of rows.entries()) {
    tokens.set(vocabulary.encode(row.text, length), i * length);
    label[i] = labels.indexOf(row.label);
    if (label[i] < 0) {
      throw new FormatError({
        file,
        problem: `label ${JSON.stringify(row.label)}`,
        expected: `one of ${labels.join(", ")}`,
      });
    }
  }
  return { tokens: { shape: [rows.length, length], values: tokens }, label: { shape: [rows.length], values: label } };
}

import type { ResultRow } from "./resultRow.js";

interface Column {
  /** Two lines. */
  title: readonly [string, string];
  align?: "left";
  /** Undefined: not measured. */
  cell(row: ResultRow, first: ResultRow): string | undefined;
}

const percent = (share: number | undefined, digits: number) =>
  share === undefined ? undefined : `${(share * 100).toFixed(digits)} %`;
const fixed = (value: number | undefined, digits: number) => value?.toFixed(digits);
/** At least three figures, and no decimals beyond the third. */
const figures = (value: number | undefined) => {
  if (value === undefined) return undefined;
  return value.toFixed(value >= 100 ? 0 : value >= 10 ? 1 : 2);
};
const ratio = (value: number | undefined, of: number | undefined) =>
  value === undefined || of === undefined ? undefined : (value / of).toFixed(2);

const columns: readonly Column[] = [
  { title: ["", "model"], align: "left", cell: (row) => row.model },
  { title: ["", "weights"], align: "left", cell: (row) => row.weights },
  { title: ["zero", "inputs"], cell: (row) => percent(row.activationSparsity, 1) },
  { title: ["numbers", "stored"], cell: (row) => percent(row.densityStored, 1) },
  {
    title: ["MB on", "disk"],
    cell: (row) => figures(row.bytesOnDisk === undefined ? undefined : row.bytesOnDisk / 1e6),
  },
  { title: ["per-", "plexity"], cell: (row) => fixed(row.perplexity, 2) },
  { title: ["per", "word"], cell: (row) => (row.convention ? fixed(row.wordPerplexity, 2) : undefined) },
  { title: ["bits", "per byte"], cell: (row) => (row.convention ? fixed(row.bitsPerByte, 4) : undefined) },
  { title: ["KL from", "first"], cell: (row) => fixed(row.klDivergence, 4) },
  { title: ["same", "top 1"], cell: (row) => percent(row.top1Agreement, 1) },
  { title: ["prefill", "tok/s"], cell: (row) => figures(row.prefillTokensPerSecond) },
  { title: ["decode", "tok/s"], cell: (row) => figures(row.decodeTokensPerSecond) },
  { title: ["", "speed"], cell: (row, first) => ratio(row.decodeTokensPerSecond, first.decodeTokensPerSecond) },
  {
    title: ["MB per", "token"],
    cell: (row) => figures(row.bytesPerToken === undefined ? undefined : row.bytesPerToken / 1e6),
  },
  { title: ["band-", "width"], cell: (row) => percent(row.bandwidthShare, 0) },
  {
    title: ["peak", "MB"],
    cell: (row) => figures(row.peakMemoryBytes === undefined ? undefined : row.peakMemoryBytes / 1e6),
  },
];

/**
 * Rows as text with the conventions of the figures underneath. Columns that no row has are left out; ratios and
 * divergences refer to the first row. No colours, no trailing newline; up to 100 columns wide with names up to 14.
 */
export function formatResultRows(rows: readonly ResultRow[]): string {
  if (rows.length === 0) return "nothing was measured";
  const first = rows[0];
  const used = columns
    .map(({ title, align, cell }) => ({ title, align, cells: rows.map((row) => cell(row, first)) }))
    .filter(({ cells }) => cells.some((cell) => cell !== undefined))
    .map(({ title, align, cells }) => {
      const texts = [...title, ...cells.map((cell) => cell ?? "")];
      return { texts, align, width: Math.max(...texts.map((text) => text.length)) };
    });
  const line = (index: number) =>
    used
      .map(({ texts, align, width }) => (align === "left" ? texts[index].padEnd(width) : texts[index].padStart(width)))
      .join("  ")
      .trimEnd();
  const rule = used.map(({ width }) => "─".repeat(width)).join("  ");
  const lines = [line(0), line(1), rule, ...rows.map((_, r) => line(r + 2))];
  const wide = Math.max(60, Math.min(100, rule.length + 4));
  return [...lines, "", ...conventions(rows).flatMap((sentence) => wrapped(sentence, wide))].join("\n");
}

/** How the figures were got, one sentence or two for each kind that is there. */
function conventions(rows: readonly ResultRow[]): string[] {
  const sentences: string[] = [];
  const sparse = rows.some((row) => row.activationSparsity > 0);
  if (sparse) sentences.push("zero inputs: share of the blocks' inputs dropped, as counted and not as asked for.");

  if (rows.some((row) => row.densityStored !== undefined)) {
    sentences.push("numbers stored: non-zeros and factors, per weight of the source's blocks.");
  }
  const judged = rows.find((row) => row.perplexity !== undefined);
  if (judged !== undefined) {
    const { windows, window, tokens, textSha256, stride, bos, convention = "windows" } = judged;
    const cut = {
      windows: bos ? "without overlap, BOS in front of each" : "without overlap or BOS",
      rolling: `${stride} apart, every token scored once, ${bos ? "BOS in front of the text" : "no BOS"}`,
      lmEval: "as lm-evaluation-harness rolls them, BOS in front of the text",
    }[convention];
    sentences.push(
      `perplexity: ${windows} windows of ${window} tokens ${cut}, ${tokens} predicted tokens; text sha256 ${textSha256?.slice(0, 12)}….`,
    );
  }
  if (rows.some((row) => row.klDivergence !== undefined)) {
    sentences.push("KL from first: KL(first row ‖ this row), nats per token; same top 1: equal most likely token.");
  }
  const timed = rows.find((row) => row.decodeTokensPerSecond !== undefined);
  if (timed !== undefined) {
    const { repeats, prefillTokens, decodeTokens, contextTokens } = timed;
    const threads = [...new Set(rows.map((row) => row.threads).filter((count) => count !== undefined))].join(", ");
    sentences.push(
      `speed: decode against the first row; batch 1, ${threads} threads, rows taking turns in one run, median of ${repeats}; dense prefill of ${prefillTokens} tokens, ${decodeTokens} tokens decoded after ${contextTokens}.`,
      "MB per token: weights read, as counted by the backend, and keys and values; 1 MB = 10⁶ bytes.",
    );
  }
  const bounded = rows.find((row) => row.readBandwidth !== undefined);
  if (bounded !== undefined) {
    sentences.push(
      `bandwidth: share of the ${(bounded.readBandwidth! / 1e9).toFixed(1)} GB/s that this machine was measured to read.`,
    );
  }
  return sentences;
}

/** Breaks a sentence into lines of at most `width`, continued with an indent of two. */
function wrapped(sentence: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of sentence.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = " ";
    }
    line = line === "" ? word : `${line} ${word}`;
  }
  return [...lines, line];
}

import type { MeasuredSpeed } from "./measuredSpeed.js";
import { type ResultRow, runsAsInWords, speedRatio } from "./resultRow.js";
import { taskConventions, taskLines } from "./taskTable.js";

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
/** "1203 (1190–1210)": median and range of the rounds. */
const speed = (measured: MeasuredSpeed | undefined) =>
  measured && `${figures(measured.median)} (${figures(measured.min)}–${figures(measured.max)})`;

/** What a row is, in front of its figures. */
const identity: readonly Column[] = [
  { title: ["", "model"], align: "left", cell: (row) => row.model },
  { title: ["", "weights"], align: "left", cell: (row) => row.weights },
  { title: ["", "runs as"], align: "left", cell: runsAsInWords },
  { title: ["zero", "inputs"], cell: (row) => percent(row.activationSparsity, 1) },
  { title: ["exit", "layer"], cell: (row) => fixed(row.meanExitLayer, 2) },
  { title: ["layers", "taken"], cell: (row) => percent(row.layerShare, 1) },
  { title: ["keys", "read"], cell: (row) => percent(row.attendedShare, 1) },
];

const qualityColumns: readonly Column[] = [
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
];

const speedColumns: readonly Column[] = [
  { title: ["prefill", "tok/s (min–max)"], cell: (row) => speed(row.prefillTokensPerSecond) },
  { title: ["decode", "tok/s (min–max)"], cell: (row) => speed(row.decodeTokensPerSecond) },
  {
    title: ["", "speed"],
    cell: (row, first) =>
      row === first || row.decodeTokensPerSecond === undefined
        ? undefined
        : (speedRatio(row, first)?.toFixed(2).concat(" ×") ?? "–"),
  },
  {
    title: ["MB per", "token"],
    cell: (row) => figures(row.bytesPerToken === undefined ? undefined : row.bytesPerToken / 1e6),
  },
  { title: ["CPU ms", "/token"], cell: (row) => figures(row.cpuMsPerToken) },
  { title: ["GPU ms", "/token"], cell: (row) => figures(row.gpuMsPerToken) },
  { title: ["dispatches", "/token"], cell: (row) => fixed(row.dispatchesPerToken, 0) },
  { title: ["band-", "width"], cell: (row) => percent(row.bandwidthShare, 0) },
  {
    title: ["peak", "MB"],
    cell: (row) => figures(row.peakMemoryBytes === undefined ? undefined : row.peakMemoryBytes / 1e6),
  },
];

/**
 * Rows as text, what they are worth above how fast they are, with the conventions of the figures underneath. Columns that no row
 * has are left out; ratios and divergences refer to the first row. No colours, no trailing newline; up to 100 columns wide with names up to 14.
 */
export function formatResultRows(rows: readonly ResultRow[]): string {
  if (rows.length === 0) return "nothing was measured";
  const tables = [qualityColumns, speedColumns].flatMap((columns) => {
    const measured = columns.some(({ cell }) => rows.some((row) => cell(row, rows[0]) !== undefined));
    return measured ? [tableOf([...identity, ...columns], rows)] : [];
  });
  if (rows.some(({ tasks }) => tasks !== undefined)) tables.push(taskLines(rows));
  const longest = Math.max(0, ...tables.flatMap((lines) => lines.map((line) => line.length)));
  const wide = Math.max(60, Math.min(100, longest + 4));
  const sentences = conventions(rows).flatMap((sentence) => wrapped(sentence, wide));
  return [...tables.flatMap((lines) => [...lines, ""]), ...sentences].join("\n");
}

function tableOf(columns: readonly Column[], rows: readonly ResultRow[]): string[] {
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
  return [line(0), line(1), rule, ...rows.map((_, r) => line(r + 2))];
}

/** How the figures were got, one sentence or two for each kind that is there. */
function conventions(rows: readonly ResultRow[]): string[] {
  const sentences: string[] = [];
  const sparse = rows.some((row) => row.activationSparsity > 0);
  if (sparse) sentences.push("zero inputs: share of the blocks' inputs dropped, as counted and not as asked for.");

  if (rows.some((row) => row.layerShare !== undefined)) {
    sentences.push("layers taken: weights behind gates that tokens were let through to, of those behind all gates.");
  }
  if (rows.some((row) => row.attendedShare !== undefined)) {
    sentences.push("keys read: keys and values that attention read, of those it reads of all that the model sees.");
  }
  sentences.push(...rows.flatMap(whyItRunsSo));
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
      `perplexity: ${windows} window${windows === 1 ? "" : "s"} of ${window} tokens ${cut}, ${tokens} predicted tokens; text sha256 ${textSha256?.slice(0, 12)}….`,
    );
  }
  if (rows.some((row) => row.klDivergence !== undefined)) {
    sentences.push("KL from first: KL(first row ‖ this row), nats per token; same top 1: equal most likely token.");
  }
  sentences.push(...taskConventions(rows));
  const timed = rows.find((row) => row.decodeTokensPerSecond !== undefined);
  if (timed !== undefined) {
    const { repeats, prefillTokens, decodeTokens, contextTokens } = timed;
    const threads = [...new Set(rows.map((row) => row.threads).filter((count) => count !== undefined))].join(", ");
    sentences.push(
      `speed: decode against the first row, – where ranges meet or bytes and kernels are the same; batch 1, ${threads} thread${threads === "1" ? "" : "s"}, rows taking turns in one run, median and range of ${repeats}; dense prefill of ${prefillTokens} tokens, ${decodeTokens} tokens decoded after ${contextTokens}.`,
      "MB per token: weights read, as counted by the backend, and keys and values; 1 MB = 10⁶ bytes.",
    );
  }
  if (rows.some((row) => row.cpuMsPerToken !== undefined)) {
    sentences.push(
      "CPU ms: processor time of a decoded token, all threads of the process, waiting included where it asks.",
    );
  }
  if (rows.some((row) => row.gpuMsPerToken !== undefined)) {
    sentences.push("GPU ms: of a decoded token, by the GPU's timestamps, in decoding of its own after the rounds.");
  }
  const bounded = rows.find((row) => row.readBandwidth !== undefined);
  if (bounded !== undefined) {
    sentences.push(
      `bandwidth: share of the ${(bounded.readBandwidth! / 1e9).toFixed(1)} GB/s that this machine was measured to read.`,
    );
  }
  return sentences;
}

/** Why matrices that hold zeros run dense, and whatever runs in another way. */
function whyItRunsSo({ model, runsAs = [] }: ResultRow): string[] {
  const told = runsAs.filter(({ structure, zeros }) => structure !== "dense" || zeros > 0.1);
  return told.map(
    ({ structure, matrices, reasons }) =>
      `${model} runs as ${structure} in ${matrices} of ${runsAs.reduce((sum, part) => sum + part.matrices, 0)} matrices: ${reasons.join("; ")}.`,
  );
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

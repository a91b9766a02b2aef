import { expect, test } from "vitest";
import { resultRow, runsAsInWords, speedRatio } from "./resultRow.js";
import { formatResultRows } from "./resultTable.js";

const quality = (perplexity: number, activationSparsity: number, klDivergence?: number) => ({
  name: "a variant",
  perplexity,
  nll: Math.log(perplexity),
  tokens: 20440,
  window: 512,
  windows: 40,
  textSha256: "ab12cd34ef56".padEnd(64, "0"),
  activationSparsity,
  runsAs,
  attendedShare: 1,
  divergence: klDivergence === undefined ? undefined : { klDivergence, top1Agreement: 0.781 },
});

const around = (median: number, spread = 0.01, samples = 5) => ({
  median,
  min: median * (1 - spread),
  max: median * (1 + spread),
  samples,
});
const runsAs = [{ structure: "dense", matrices: 17, share: 1, zeros: 0, reasons: ["dense: hardly any weight is 0"] }];

const speed = (decodeTokensPerSecond: number, bytesPerToken: number, inputsSkipped: number) => ({
  name: "a variant",
  threads: 2,
  prefillTokens: 128,
  contextTokens: 128,
  decodeTokens: 32,
  repeats: 5,
  prefillTokensPerSecond: around(3120.4),
  decodeTokensPerSecond: around(decodeTokensPerSecond),
  runsAs,
  bytesPerToken,
  inputsSkipped,
  cacheBytes: 4e6,
  peakMemoryBytes: 121e6,
});

const model = { model: "tiny-6m", weights: "bf16", backend: "wasm" } as const;
const dense = resultRow({
  ...model,
  quality: quality(37.5269, 0),
  speed: speed(812.3, 13.1e6, 0),
  readBandwidth: 22e9,
});
const sparse = resultRow({
  ...model,
  quality: quality(47.58, 0.501, 0.2314),
  speed: speed(1203.1, 7.9e6, 0.498),
  readBandwidth: 22e9,
});

test("a row joins the figures of one variant under their names", () => {
  expect(sparse).toEqual({
    model: "tiny-6m",
    weights: "bf16",
    activationSparsity: 0.501,
    perplexity: 47.58,
    nll: Math.log(47.58),
    tokens: 20440,
    window: 512,
    windows: 40,
    textSha256: "ab12cd34ef56".padEnd(64, "0"),
    klDivergence: 0.2314,
    top1Agreement: 0.781,
    backend: "wasm",
    threads: 2,
    prefillTokens: 128,
    contextTokens: 128,
    decodeTokens: 32,
    repeats: 5,
    prefillTokensPerSecond: around(3120.4),
    decodeTokensPerSecond: around(1203.1),
    runsAs,
    bytesPerToken: 7.9e6,
    readBandwidth: 22e9,
    bandwidthShare: (7.9e6 * 1203.1) / 22e9,
    cacheBytes: 4e6,
    peakMemoryBytes: 121e6,
  });
  expect(resultRow({ ...model, speed: speed(10, 1e6, 0.4) })).toMatchObject({ activationSparsity: 0.4 });
  expect(resultRow({ ...model, speed: speed(10, 1e6, 0.4) })).not.toHaveProperty("bandwidthShare");
});

test("the table aligns, compares with the first row and states its conventions", () => {
  expect(`\n${formatResultRows([dense, sparse])}\n`).toBe(`
                             zero     per-  KL from    same
model    weights  runs as  inputs  plexity    first   top 1
───────  ───────  ───────  ──────  ───────  ───────  ──────
tiny-6m  bf16     dense     0.0 %    37.53
tiny-6m  bf16     dense    50.1 %    47.58   0.2314  78.1 %

                             zero           prefill            decode          MB per  band-  peak
model    weights  runs as  inputs   tok/s (min–max)   tok/s (min–max)   speed   token  width    MB
───────  ───────  ───────  ──────  ────────────────  ────────────────  ──────  ──────  ─────  ────
tiny-6m  bf16     dense     0.0 %  3120 (3089–3152)     812 (804–820)            13.1   48 %   121
tiny-6m  bf16     dense    50.1 %  3120 (3089–3152)  1203 (1191–1215)  1.48 ×    7.90   43 %   121

zero inputs: share of the blocks' inputs dropped, as counted and not as asked for.
perplexity: 40 windows of 512 tokens without overlap or BOS, 20440 predicted tokens; text sha256
  ab12cd34ef56….
KL from first: KL(first row ‖ this row), nats per token; same top 1: equal most likely token.
speed: decode against the first row, – where ranges meet or bytes and kernels are the same; batch 1,
  2 threads, rows taking turns in one run, median and range of 5; dense prefill of 128 tokens, 32
  tokens decoded after 128.
MB per token: weights read, as counted by the backend, and keys and values; 1 MB = 10⁶ bytes.
bandwidth: share of the 22.0 GB/s that this machine was measured to read.
`);
});

test("of a token what the processor and the GPU took, and its dispatches, where they were measured", () => {
  const onGpu = { ...speed(220, 13e9, 0), cpuMsPerToken: 4.9, gpuMsPerToken: 4.37, dispatchesPerToken: 165 };
  const more = { passesPerToken: 3, submitsPerToken: 3.03 };
  const row = resultRow({ ...model, speed: { ...onGpu, ...more } });
  expect(row).toMatchObject({ cpuMsPerToken: 4.9, gpuMsPerToken: 4.37, dispatchesPerToken: 165, ...more });
  const lines = formatResultRows([row]).split("\n");
  expect(lines[0]).toMatch(/CPU ms {2}GPU ms {2}dispatches/);
  expect(lines[3]).toMatch(/ 4\.90 +4\.37 +165 /);
  expect(formatResultRows([resultRow({ ...model, speed: speed(220, 13e9, 0) })])).not.toMatch(
    /CPU ms|GPU ms|dispatches/,
  );
});

test("what was not measured is left out, of the columns and of the conventions", () => {
  const text = formatResultRows([resultRow({ ...model, quality: quality(37.5, 0) })]);
  expect(text.split("\n").slice(0, 4).join("\n")).toBe(
    [
      "                             zero     per-",
      "model    weights  runs as  inputs  plexity",
      "───────  ───────  ───────  ──────  ───────",
      "tiny-6m  bf16     dense     0.0 %    37.50",
    ].join("\n"),
  );
  expect(text).not.toMatch(/speed|KL|bandwidth|zero inputs:/);
  expect(formatResultRows([])).toBe("nothing was measured");
});

test("a ratio of speeds is one only where ranges do not meet, and bytes or kernels differ", () => {
  const timed = (median: number, more: object = {}) => ({ ...dense, decodeTokensPerSecond: around(median), ...more });
  const less = { bytesPerToken: 7.9e6 };
  const cut = { runsAs: [{ ...runsAs[0], structure: "2:4" }] };
  expect(speedRatio(timed(1218, less), timed(812))).toBe(1218 / 812);
  expect(speedRatio(timed(1218, cut), timed(812))).toBe(1218 / 812);
  expect(speedRatio(timed(1218), timed(812))).toBeUndefined();
  expect(speedRatio(timed(820, less), timed(812))).toBeUndefined();
  expect(speedRatio(timed(1218, { ...less, decodeTokensPerSecond: around(1218, 0, 1) }), timed(812))).toBeUndefined();
});

test("what ran is named by structure, zeros and share of the matrices; why is a sentence", () => {
  const mixed = [
    { structure: "bitmask", matrices: 12, share: 0.75, zeros: 0.497, reasons: ["fastest"] },
    { structure: "dense", matrices: 4, share: 0.25, zeros: 0.5, reasons: ["dense: bitmask-bf16 is no faster"] },
  ];
  expect(runsAsInWords({ runsAs: mixed })).toBe("75 % bitmask 50 %, 25 % dense");
  expect(runsAsInWords({})).toBeUndefined();
  const text = formatResultRows([{ ...dense, runsAs: mixed }]);
  expect(text).toContain("tiny-6m runs as dense in 4 of 16 matrices: dense: bitmask-bf16 is no faster.");
});

import { describe, expect, it } from "vitest";
import { readModelSpec } from "../arch/index.js";
import { FormatError } from "../core/index.js";
import { type Artifact, memoryFiles, memorySinks, openCheckpoint, writeSafetensors } from "../io/index.js";
import { fromFloat32 } from "../tensor/index.js";
import { type ReportData, runOfArtifact, runOfSweep } from "./data.js";
import { joinRuns, reportJson } from "./join.js";
import { layerLines } from "./lines.js";
import { drawMask } from "./masks.js";
import { reportPage } from "./page.js";
import { summaryOf } from "./summary.js";

const evil = `"><script>alert(1)</script>&'</style>`;
const measured = (median: number, spread = 0.05) => ({
  median,
  min: median * (1 - spread),
  max: median * (1 + spread),
  samples: 5,
});
const runsAs = (structure: string, zeros: number) => [
  { structure, matrices: 8, share: 1, zeros, reasons: ["fastest"] },
];
const row = (model: string, perplexity: number, megabytes: number, speed: number) => ({
  model,
  weights: "bf16" as const,
  activationSparsity: 0,
  perplexity,
  bytesOnDisk: megabytes * 1e6,
  decodeTokensPerSecond: measured(speed),
  bytesPerToken: megabytes * 0.9e6,
  runsAs: runsAs("dense", 0),
  windows: 10,
  window: 512,
  tokens: 5110,
  textSha256: "ab".repeat(32),
});
const matrices = (sparsity: number) => ({
  q_proj: { rows: 4, cols: 8, sparsity, nonZeros: 16, relativeError: 0.125 },
  down_proj: { rows: 4, cols: 4, sparsity: sparsity / 2, nonZeros: 12 },
});
const sweep = {
  rarefySweep: 1,
  model: "org/model",
  machine: { cpu: evil, cpus: 2 },
  entries: [
    { key: "a", name: "model", row: row("model", 30, 50, 100) },
    {
      key: "b",
      name: `wanda-${evil}`,
      row: row(evil, 34, 30, 140),
      recipe: { stages: [{ type: "prune", method: evil }] },
      layers: [
        { source: 0, matrices: matrices(0.5) },
        { source: 1, matrices: matrices(0.75) },
      ],
    },
    {
      key: "c",
      name: "magnitude-0.5",
      row: row("magnitude-0.5", 40, 31, 139),
      recipe: { stages: [{ method: "magnitude" }] },
    },
  ],
};
const data: ReportData = { rarefyReport: 1, runs: [runOfSweep(sweep, evil, "sweep.json")] };

describe("what candidates cost and gave, in a sentence", () => {
  const named = (name: string, perplexity: number, megabytes: number, speed: number) => ({
    name,
    row: row(name, perplexity, megabytes, speed),
  });
  const sentences = (...candidates: ReturnType<typeof named>[]) =>
    summaryOf({ location: "d", source: row("model", 30, 50, 100), candidates, environment: [] });

  it("of one, with the figures of the table", () => {
    expect(sentences(named("a", 34, 30, 140))).toEqual([
      "a: perplexity 30.00 → 34.00 (+13.3 %), 0.60 × the size on disk, 1.40 × the speed of decoding.",
    ]);
    expect(sentences(named("a", 29, 50, 105))).toEqual([
      "a: perplexity 30.00 → 29.00 (−3.3 %), as large on disk, no difference in the speed of decoding.",
    ]);
  });

  it("of several, those that lose least, are smallest and fastest; what cannot be told is not said", () => {
    const [best, small, fast] = [named("a", 31, 45, 104), named("b", 40, 20, 130), named("c", 36, 30, 160)];
    expect(sentences(fast, best, small)).toEqual([
      "Loses least: a: perplexity 30.00 → 31.00 (+3.3 %), 0.90 × the size on disk, no difference in the speed of decoding.",
      "Smallest: b: perplexity 30.00 → 40.00 (+33.3 %), 0.40 × the size on disk, 1.30 × the speed of decoding.",
      "Fastest: c: perplexity 30.00 → 36.00 (+20.0 %), 0.60 × the size on disk, 1.60 × the speed of decoding.",
    ]);
    // 160 ± 5 % and 155 ± 5 % meet, and 30.0 MB are 30.0 MB.
    expect(sentences(best, fast, named("d", 37, 30, 155)).map((text) => text.split(":")[0])).toEqual(["Loses least"]);
  });

  it("of nothing that was measured: nothing", () => {
    expect(sentences()).toEqual([]);
    const { perplexity: _, ...unmeasured } = row("model", 30, 50, 100);
    const run = { location: "d", source: unmeasured, candidates: [named("a", 34, 30, 140)], environment: [] };
    expect(summaryOf(run)).toEqual([]);
  });
});

describe("report page", () => {
  it("escapes everything that comes from files", async () => {
    const page = await reportPage(data);
    expect(page).not.toContain("<script");
    expect(page).not.toContain("</style>&");
    expect(page.split("&lt;script&gt;alert(1)").length).toBeGreaterThan(8);
    // One opened and one closed of each.
    for (const tag of ["style", "body", "section"]) expect(page.split(`</${tag}>`).length, tag).toBe(2);
  });

  it("fetches nothing", async () => {
    const page = await reportPage(data);
    expect(page).toContain(`content="default-src 'none'; style-src 'unsafe-inline'; img-src data:"`);
    expect(page).not.toMatch(/(?:src|href)="(?!data:)/);
    expect(page).not.toMatch(/url\(/);
  });

  it("shows before and after, what it cost and what it gave", async () => {
    const text = (await reportPage(data)).replace(/<[^>]*>/g, " ").replace(/\s+/g, " ");
    expect(text).toContain("model bf16 dense 30.00");
    expect(text).toContain("(+13.3 %), 0.60 × the size on disk, 1.40 × the speed of decoding. Before and after");
    // 34 / 30 − 1, 30 / 50, 140 / 100
    expect(text).toMatch(/bf16 dense 34\.00 \+13\.3 % 30\.0 0\.60 × 140 \(133–147\) 1\.40 × 27\.0/);
    expect(text).toContain("Perplexity against size");
    expect(text).toContain("Perplexity against speed");
    // Weighted by size: (0.5 · 32 + 0.25 · 16) / 48 in the heat map's own cells 50 % and 25 %.
    expect(text).toMatch(/layer 0, q_proj: 50 %/);
    expect(text).toMatch(/layer 0, down_proj: 25 %/);
    expect(text).toMatch(/layer 1, q_proj: 0\.125/);
    expect(text).toContain("10 windows of 512 tokens, 5110 predicted");
  });

  it("shows no ratio and no place on the plot where ranges meet, or bytes and kernels are the same", async () => {
    const entry = (name: string, change: object) => ({ name, row: { ...row(name, 33, 30, 140), ...change } });
    const shown = async (...entries: ReturnType<typeof entry>[]) => {
      const run = runOfSweep({ ...sweep, entries: [sweep.entries[0], ...entries] }, "x", "sweep.json");
      return (await reportPage({ rarefyReport: 1, runs: [run] })).replace(/<[^>]*>/g, " ").replace(/\s+/g, " ");
    };
    const same = { bytesPerToken: 45e6 };
    const wide = { decodeTokensPerSecond: measured(140, 0.3) };
    const page = await shown(entry("same", same), entry("wide", wide), entry("old", { decodeTokensPerSecond: 140 }));
    expect(page).toMatch(/same bf16 dense 33\.00 .* 140 \(133–147\) – 45\.0/);
    expect(page).toMatch(/wide bf16 dense 33\.00 .* 140 \(98\.0–182\) – 27\.0/);
    expect(page).toMatch(/old bf16 dense 33\.00 .* 140 \(once\) – 27\.0/);
    expect(page).toContain("Perplexity against size");
    expect(page).not.toContain("Perplexity against speed");

    const [cut, masked] = [
      { ...same, runsAs: runsAs("2:4", 0.5) },
      { ...same, runsAs: runsAs("bitmask", 0.497) },
    ];
    const told = await shown(entry("cut", cut), entry("masked", masked));
    expect(told).toMatch(/cut bf16 2:4 .* 1\.40 × 45\.0/);
    expect(told).toMatch(/masked bf16 bitmask 50 % .* 1\.40 × 45\.0/);
    expect(told).toContain("Perplexity against speed");
  });

  it("leaves out what was not measured", async () => {
    const bare = {
      ...sweep,
      entries: sweep.entries.map(({ name, row: { model, weights } }) => ({ name, row: { model, weights } })),
    };
    const page = await reportPage({ rarefyReport: 1, runs: [runOfSweep(bare, "x", "sweep.json")] });
    expect(page).not.toContain("<svg");
    expect(page).not.toContain("NaN");
    expect(page).not.toContain("undefined");
    expect(await reportPage(data)).not.toMatch(/NaN|undefined|Infinity/);
  });

  it("draws activations with their thresholds", async () => {
    const cut = { threshold: 0.25, sparsity: 0.5 };
    const names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"] as const;
    const absQuantiles = Array.from({ length: 20 }, (_, i) => (i + 1) / 20);
    const artifact = {
      rarefy: 2,
      activationSparsity: {
        layers: [{ maps: Object.fromEntries(names.map((name) => [name, cut])) }],
      },
      activations: [{ attentionInput: { values: 100, zeros: 0, absQuantiles } }],
    } as unknown as Artifact;
    const llama = { model_type: "llama", vocab_size: 8, hidden_size: 8, intermediate_size: 8, num_hidden_layers: 1 };
    const spec = readModelSpec({ ...llama, num_attention_heads: 2 }, "config.json");
    const page = await reportPage({ rarefyReport: 1, runs: [runOfArtifact(artifact, "m", "m", 1, spec)] });
    expect(page).toContain("layer 0, attentionInput");
    // q, k and v; where it is not known what reads there, none.
    expect(page.split('class="threshold"').length).toBe(4);
    const unknown = await reportPage({ rarefyReport: 1, runs: [runOfArtifact(artifact, "m", "m", 1)] });
    expect(unknown.split('class="threshold"').length).toBe(1);
    // A uniform distribution has bars of one height.
    const heights = new Set(Array.from(page.matchAll(/class="bar"[^>]* height="([\d.]+)"/g), ([, height]) => height));
    expect(heights.size).toBe(1);
  });

  it("refuses a sweep that is none, naming the field", () => {
    const wrong: [unknown, string][] = [
      [{}, "rarefySweep"],
      [{ ...sweep, entries: [] }, "entries"],
      [
        { ...sweep, entries: [{ name: "x", row: { model: "m", weights: "q8", perplexity: -1 } }] },
        "entries.0.row.perplexity",
      ],
      [{ ...sweep, entries: [{ name: 7, row: {} }] }, "entries.0.name"],
      [[], ""],
    ];
    for (const [raw, field] of wrong) {
      const error = (() => {
        try {
          runOfSweep(raw, "x", "sweep.json");
        } catch (caught) {
          return caught;
        }
      })();
      expect(error).toBeInstanceOf(FormatError);
      expect((error as FormatError).details.field ?? "").toBe(field);
    }
  });
});

describe("report parts", () => {
  it("joins models that were measured against the same source", () => {
    const made = (name: string, perplexity: number): ReturnType<typeof runOfArtifact> =>
      runOfArtifact({ rarefy: 2, results: [row("s", 30, 50, 1), row(name, perplexity, 20, 2)] }, name, name, 1);
    const other = runOfArtifact({ rarefy: 2, results: [row("t", 31, 50, 1), row("d", 40, 20, 2)] }, "d", "d", 1);
    const joined = joinRuns([made("a", 33), other, made("b", 34)]);
    expect(joined.map(({ location }) => location)).toEqual(["a, b", "d"]);
    expect(joined[0].candidates.map(({ name }) => name)).toEqual(["a", "b"]);
    expect(JSON.parse(reportJson({ rarefyReport: 1, runs: joined })).runs[0].candidates).toHaveLength(2);
  });

  it("names lines at their ends, those that end together once", () => {
    const line = (name: string, ...values: number[]) => ({ name, color: "#000", values });
    const lines = [line("first", 0.1, 0.5), line("second", 0.2, 0.501), line("third", 0.5, 0.9), line("short", 0.7)];
    const { text } = layerLines(lines, "t", "zeros", [0, 1]);
    expect([...text.matchAll(/class="name"[^>]*>([^<]*)</g)].map(([, name]) => name)).toEqual(["first +1", "third"]);
    expect(text).toContain(">0.2<");
    expect(text).toContain(">1<");
  });

  it("draws which weights are zero", async () => {
    const files = new Map([["config.json", new TextEncoder().encode("{}")]]);
    const [rows, cols] = [300, 128];
    // 2:4 above, dense in the lower half.
    const values = Float32Array.from({ length: rows * cols }, (_, i) => (i < (rows / 2) * cols && i % 4 < 2 ? 0 : 1));
    await writeSafetensors(memorySinks(files), [
      { name: "w", dtype: "BF16", shape: [rows, cols], bytes: () => [fromFloat32("BF16", values)] },
    ]);
    const mask = await drawMask(await openCheckpoint(memoryFiles("m", files)), "w");
    expect([...mask.corner.pixels.subarray(0, 8)]).toEqual([255, 255, 0, 0, 255, 255, 0, 0]);
    const { pixels, width, height } = mask.overview;
    expect([width, height]).toEqual([64, 64]);
    // A cell is two columns wide: both zero, both kept.
    expect([...pixels.subarray(0, 4)]).toEqual([255, 0, 255, 0]);
    expect(Math.max(...pixels.subarray(width * 33))).toBe(0);
  });
});

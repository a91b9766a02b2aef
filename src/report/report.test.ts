import { inflateSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { FormatError } from "../core/index.js";
import { type Artifact, memoryFiles, memorySinks, openCheckpoint, writeSafetensors } from "../io/index.js";
import { fromFloat32 } from "../tensor/index.js";
import { type ReportData, runOfArtifact, runOfSweep } from "./data.js";
import { html } from "./html.js";
import { joinRuns, reportJson } from "./join.js";
import { layerLines } from "./lines.js";
import { drawMask } from "./masks.js";
import { reportPage } from "./page.js";
import { greyPng } from "./png.js";
import { linearScale, logScale, short } from "./scale.js";
import { frontier, scatter } from "./scatter.js";

const evil = `"><script>alert(1)</script>&'</style>`;
const row = (model: string, perplexity: number, megabytes: number, speed: number) => ({
  model,
  weights: "bf16",
  activationSparsity: 0,
  perplexity,
  bytesOnDisk: megabytes * 1e6,
  decodeTokensPerSecond: speed,
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

describe("report page", () => {
  it("escapes everything that comes from files", () => {
    const page = reportPage(data);
    expect(page).not.toContain("<script");
    expect(page).not.toContain("</style>&");
    expect(page.split("&lt;script&gt;alert(1)").length).toBeGreaterThan(8);
    // One opened and one closed of each.
    for (const tag of ["style", "body", "section"]) expect(page.split(`</${tag}>`).length, tag).toBe(2);
  });

  it("fetches nothing", () => {
    const page = reportPage(data);
    expect(page).toContain(`content="default-src 'none'; style-src 'unsafe-inline'; img-src data:"`);
    expect(page).not.toMatch(/(?:src|href)="(?!data:)/);
    expect(page).not.toMatch(/url\(/);
  });

  it("shows before and after, what it cost and what it gave", () => {
    const text = reportPage(data)
      .replace(/<[^>]*>/g, " ")
      .replace(/\s+/g, " ");
    expect(text).toContain("model bf16 30.00");
    // 34 / 30 − 1, 30 / 50, 140 / 100
    expect(text).toMatch(/bf16 34\.00 \+13\.3 % 30\.0 0\.60 × 140 1\.40 ×/);
    expect(text).toContain("Perplexity against size");
    expect(text).toContain("Perplexity against speed");
    // Weighted by size: (0.5 · 32 + 0.25 · 16) / 48 in the heat map's own cells 50 % and 25 %.
    expect(text).toMatch(/layer 0, q: 50 %/);
    expect(text).toMatch(/layer 0, down: 25 %/);
    expect(text).toMatch(/layer 1, q: 0\.125/);
    expect(text).toContain("10 windows of 512 tokens, 5110 predicted");
  });

  it("leaves out what was not measured", () => {
    const bare = {
      ...sweep,
      entries: sweep.entries.map(({ name, row: { model, weights } }) => ({ name, row: { model, weights } })),
    };
    const page = reportPage({ rarefyReport: 1, runs: [runOfSweep(bare, "x", "sweep.json")] });
    expect(page).not.toContain("<svg");
    expect(page).not.toContain("NaN");
    expect(page).not.toContain("undefined");
    expect(reportPage(data)).not.toMatch(/NaN|undefined|Infinity/);
  });

  it("draws activations with their thresholds", () => {
    const cut = { threshold: 0.25, sparsity: 0.5 };
    const names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"] as const;
    const absQuantiles = Array.from({ length: 20 }, (_, i) => (i + 1) / 20);
    const artifact = {
      rarefy: 1,
      activationSparsity: {
        layers: [{ projections: Object.fromEntries(names.map((name) => [name, cut])) }],
      },
      activations: [{ attentionInput: { values: 100, zeros: 0, absQuantiles } }],
    } as unknown as Artifact;
    const page = reportPage({ rarefyReport: 1, runs: [runOfArtifact(artifact, "m", "m", 1)] });
    expect(page).toContain("layer 0, attentionInput");
    // q, k and v.
    expect(page.split('class="threshold"').length).toBe(4);
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
      runOfArtifact({ rarefy: 1, results: [row("s", 30, 50, 1), row(name, perplexity, 20, 2)] }, name, name, 1);
    const other = runOfArtifact({ rarefy: 1, results: [row("t", 31, 50, 1), row("d", 40, 20, 2)] }, "d", "d", 1);
    const joined = joinRuns([made("a", 33), other, made("b", 34)]);
    expect(joined.map(({ location }) => location)).toEqual(["a, b", "d"]);
    expect(joined[0].candidates.map(({ name }) => name)).toEqual(["a", "b"]);
    expect(JSON.parse(reportJson({ rarefyReport: 1, runs: joined })).runs[0].candidates).toHaveLength(2);
  });

  it("joins levels of a group, and draws at the edge what lies far above", () => {
    const point = (name: string, x: number, y: number, level?: number) => ({ name, group: "wanda", x, y, level });
    const points = [point("b", 5, 33, 0.5), point("c", 3, 900, 0.7), point("a", 7, 31, 0.3), point("4:8", 5, 35)];
    const options = { title: "t", xLabel: "x", yLabel: "y", better: "less" } as const;
    const { text } = scatter(points, new Map([["wanda", "#123456"]]), options);
    expect(text.split("<circle").length - 1).toBe(3);
    expect(text.split('class="beyond"').length - 1).toBe(1);
    const ends = [
      ...text.matchAll(/<polyline class="series" stroke="#123456" points="([\d.]+),[\d.]+ ([\d.]+),[\d.]+"/g),
    ];
    expect(ends).toHaveLength(1);
    expect(Number(ends[0][1])).toBeGreaterThan(Number(ends[0][2]));
    // Where most are far above, all are drawn where they are.
    const far = scatter(
      points.map((p, i) => ({ ...p, y: i === 0 ? 1 : p.y })),
      new Map(),
      options,
    ).text;
    expect(far).not.toContain('class="beyond"');
  });

  it("names lines at their ends, those that end together once", () => {
    const line = (name: string, ...values: number[]) => ({ name, color: "#000", values });
    const lines = [line("first", 0.1, 0.5), line("second", 0.2, 0.501), line("third", 0.5, 0.9), line("short", 0.7)];
    const { text } = layerLines(lines, "t", "zeros", [0, 1]);
    expect([...text.matchAll(/class="name"[^>]*>([^<]*)</g)].map(([, name]) => name)).toEqual(["first +1", "third"]);
    expect(text).toContain(">0.2<");
    expect(text).toContain(">1<");
  });

  it("finds the points that no other beats", () => {
    const points = [
      [1, 9],
      [2, 5],
      [3, 6],
      [4, 4],
      [5, 4],
    ].map(([x, y]) => ({ name: `${x}`, group: "", x, y }));
    expect(frontier(points, "less").map(({ name }) => name)).toEqual(["1", "2", "4"]);
    expect(frontier(points, "more").map(({ name }) => name)).toEqual(["5"]);
  });

  it("writes a PNG that inflates to its pixels", () => {
    const pixels = Uint8Array.from({ length: 300 * 250 }, (_, i) => (i * 7) & 255);
    const png = greyPng(pixels, 300, 250);
    const view = new DataView(png.buffer);
    const chunks = new Map<string, Uint8Array>();
    for (let at = 8; at < png.length; ) {
      const length = view.getUint32(at);
      chunks.set(String.fromCharCode(...png.subarray(at + 4, at + 8)), png.subarray(at + 8, at + 8 + length));
      at += 12 + length;
    }
    expect([...chunks.keys()]).toEqual(["IHDR", "IDAT", "IEND"]);
    // The checksum of IEND is a constant of the format.
    expect([...png.subarray(-4)]).toEqual([0xae, 0x42, 0x60, 0x82]);
    const rows = inflateSync(chunks.get("IDAT")!);
    expect(rows.length).toBe(250 * 301);
    expect([...rows.subarray(301 * 9, 301 * 9 + 4)]).toEqual([0, pixels[2700], pixels[2701], pixels[2702]]);
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

  it("puts values on round scales", () => {
    const linear = linearScale([0, 97], [10, 110]);
    expect(linear(48.5)).toBe(60);
    expect(linear.ticks).toEqual([0, 20, 40, 60, 80]);
    const log = logScale([10, 1000], [0, 100]);
    expect(log(100)).toBeCloseTo(50);
    expect(log.ticks).toEqual([10, 100, 1000]);
    expect(linearScale([5, 5], [0, 1])(5)).toBeGreaterThan(0);
    expect([short(1234567), short(12.345), short(0), short(0.0001)]).toEqual(["1.2e+6", "12.3", "0", "0.00010"]);
  });

  it("escapes between tags and in attributes", () => {
    expect(html`<a title="${evil}">${evil}${[html`<b>${1}</b>`, undefined, false]}</a>`.text).toBe(
      `<a title="&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;&#39;&lt;/style&gt;">&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;&#39;&lt;/style&gt;<b>1</b></a>`,
    );
  });
});

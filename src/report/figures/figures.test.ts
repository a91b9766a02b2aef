import { inflateSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { fromBase64, toBase64 } from "./bytes.js";
import { html } from "./html.js";
import { greyMap, levelPanels } from "./levels.js";
import { lineChart } from "./lineChart.js";
import { greyPng } from "./png.js";
import { linearScale, logScale, short } from "./scale.js";
import { frontier, scatter } from "./scatter.js";
import { figure, svgFile } from "./svg.js";

const evil = `"><script>alert(1)</script>&'</style>`;

/** Tags of a text, checked to nest. */
function tagsOf(text: string): string[] {
  const open: string[] = [];
  const seen: string[] = [];
  for (const [, close, name, selfClosing] of text.matchAll(/<(\/?)([a-z]+)(?:\s[^>]*?)?(\/?)>/g)) {
    if (close) expect(open.pop()).toBe(name);
    else {
      seen.push(name);
      if (!selfClosing) open.push(name);
    }
  }
  expect(open).toEqual([]);
  return seen;
}

/** Parts of a PNG by name. */
function chunksOf(png: Uint8Array): Map<string, Uint8Array> {
  const view = new DataView(png.buffer, png.byteOffset);
  const chunks = new Map<string, Uint8Array>();
  for (let at = 8; at < png.length; ) {
    const length = view.getUint32(at);
    chunks.set(String.fromCharCode(...png.subarray(at + 4, at + 8)), png.slice(at + 8, at + 8 + length));
    at += 12 + length;
  }
  return chunks;
}

const linesOf = (text: string) => [...text.matchAll(/<polyline class="line"[^>]* points="([^"]+)"/g)].map(([, p]) => p);

describe("line charts", () => {
  const options = { title: "a < b & c", xLabel: "x", yLabel: "y" };

  it("place points on their axes and name their lines", () => {
    const picture = lineChart(
      [
        {
          name: "one",
          points: [
            [0, 0],
            [10, 5],
            [Number.NaN, 3],
          ],
        },
        { name: "two", points: [[5, 5]], dashed: true },
      ],
      { ...options, names: "below" },
    );
    for (const text of [svgFile(picture), figure(picture).text]) {
      expect(tagsOf(text)).toContain("polyline");
      expect(text).toContain("a &lt; b &amp; c");
      // From the lower left corner of the plot to its upper right.
      expect(linesOf(text)[0]).toBe("48,190 366,14");
      expect(text).toMatch(/>one<.*>two</s);
      expect(text.split("stroke-dasharray=").length - 1).toBe(2);
    }
  });

  it("space powers of ten evenly on logarithmic axes and leave out what is not positive", () => {
    const points = [1, 10, 100, 0].map((v) => [v, v] as const);
    const { body } = lineChart([{ name: "one", points }], { ...options, logX: true, logY: true });
    expect(linesOf(body.text)).toEqual(["48,190 207,102 366,14"]);
  });

  it("are charts without points too, and draw at the edge what lies beyond the range", () => {
    expect(tagsOf(svgFile(lineChart([{ name: "none", points: [] }], options)))).toContain("svg");
    const points = [
      [0, -5],
      [1, 5],
    ] as const;
    const { body } = lineChart([{ name: "far", points }], { ...options, yRange: [0, 1] });
    expect(linesOf(body.text)).toEqual(["48,190 366,14"]);
  });
});

describe("scatter plots", () => {
  it("join levels of a group, and draw at the edge what lies far above", () => {
    const point = (name: string, x: number, y: number, level?: number) => ({ name, group: "wanda", x, y, level });
    const points = [point("b", 5, 33, 0.5), point("c", 3, 900, 0.7), point("a", 7, 31, 0.3), point("4:8", 5, 35)];
    const options = { title: "t", xLabel: "x", yLabel: "y", better: "less" } as const;
    const { text } = scatter(points, new Map([["wanda", "#123456"]]), options).body;
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
    ).body.text;
    expect(far).not.toContain('class="beyond"');
  });

  it("find the points that no other beats", () => {
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
});

describe("pictures of levels", () => {
  it("are PNGs that inflate to their pixels", async () => {
    const pixels = Uint8Array.from({ length: 300 * 250 }, (_, i) => (i * 7) & 255);
    const png = await greyPng(pixels, 300, 250);
    const chunks = chunksOf(png);
    expect([...chunks.keys()]).toEqual(["IHDR", "IDAT", "IEND"]);
    // The checksum of IEND is a constant of the format.
    expect([...png.subarray(-4)]).toEqual([0xae, 0x42, 0x60, 0x82]);
    const rows = inflateSync(chunks.get("IDAT")!);
    expect(rows.length).toBe(250 * 301);
    expect([...rows.subarray(301 * 9, 301 * 9 + 4)]).toEqual([0, pixels[2700], pixels[2701], pixels[2702]]);
  });

  it("are dark for large values", async () => {
    const map = greyMap([0, 1, 2, 4, 0, 4], 2, 3);
    expect(map.max).toBe(4);
    const svg = svgFile(await levelPanels("title", [{ title: "panel", map }]));
    tagsOf(svg);
    const [, base64] = /data:image\/png;base64,([A-Za-z0-9+/=]+)/.exec(svg)!;
    const chunks = chunksOf(fromBase64(base64));
    const header = new DataView(chunks.get("IHDR")!.buffer);
    expect([header.getUint32(0), header.getUint32(4)]).toEqual([3, 2]);
    expect([...inflateSync(chunks.get("IDAT")!)]).toEqual([0, 255, 191, 127, 0, 0, 255, 0]);
  });

  it("keep bytes in base64, however many", () => {
    const bytes = Uint8Array.from({ length: 20_000 }, (_, i) => (i * 31) & 255);
    expect(fromBase64(toBase64(bytes))).toEqual(bytes);
  });
});

describe("scales", () => {
  it("ends at the largest number, whatever room is left around a domain", () => {
    for (const scale of [linearScale([1.7e308, 1.7e308], [0, 100]), logScale([1.7e308, 1.7e308], [0, 100])])
      expect(scale(1.7e308)).toBeGreaterThan(0);
    expect(logScale([1.6e308, 1.7e308 * 1.3], [0, 100]).ticks.every(Number.isFinite)).toBe(true);
  });

  it("put values on round ticks", () => {
    const linear = linearScale([0, 97], [10, 110]);
    expect(linear(48.5)).toBe(60);
    expect(linear.ticks).toEqual([0, 20, 40, 60, 80]);
    const log = logScale([10, 1000], [0, 100]);
    expect(log(100)).toBeCloseTo(50);
    expect(log.ticks).toEqual([10, 100, 1000]);
    expect(linearScale([5, 5], [0, 1])(5)).toBeGreaterThan(0);
    expect([short(1234567), short(12.345), short(0), short(0.0001)]).toEqual(["1.2e+6", "12.3", "0", "0.00010"]);
  });

  it.each([
    [1e16, 1e16 + 2],
    [-1.7e308, 1.7e308],
    [0, 5e-324],
    [1e-300, 1.7e308],
    [3, 3 + 1e-15],
  ])("end for every domain: %s to %s", (low, high) => {
    for (const scale of low > 0 ? [linearScale, logScale] : [linearScale]) {
      const made = scale([low, high], [0, 100]);
      expect(made.ticks.length).toBeLessThan(21);
      for (const value of [low, high]) {
        expect(made(value)).toBeGreaterThanOrEqual(-1e-6);
        expect(made(value)).toBeLessThanOrEqual(100 + 1e-6);
      }
    }
  });
});

describe("markup", () => {
  it("is escaped between tags and in attributes", () => {
    expect(html`<a title="${evil}">${evil}${[html`<b>${1}</b>`, undefined, false]}</a>`.text).toBe(
      `<a title="&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;&#39;&lt;/style&gt;">&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;&#39;&lt;/style&gt;<b>1</b></a>`,
    );
  });
});

import { expect, test } from "vitest";
import { lineChart } from "./chart.js";
import { greyMap, heatMaps } from "./heatMap.js";
import { markdownTable } from "./pages.js";
import { meanAndDeviation, spread } from "./statistics.js";

/** Tags of an SVG text, checked to nest. */
function tagsOf(svg: string): string[] {
  const open: string[] = [];
  const seen: string[] = [];
  for (const [, close, name, selfClosing] of svg.matchAll(/<(\/?)([a-z]+)(?:\s[^>]*?)?(\/?)>/g)) {
    if (close) expect(open.pop()).toBe(name);
    else {
      seen.push(name);
      if (!selfClosing) open.push(name);
    }
  }
  expect(open).toEqual([]);
  return seen;
}

const options = { title: "a < b & c", xLabel: "x", yLabel: "y" };

test("a chart places points on its axes and names its series", () => {
  const svg = lineChart(
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
    options,
  );
  expect(tagsOf(svg)).toContain("path");
  expect(svg).toContain("a &lt; b &amp; c");
  // From the lower left corner of the plot to its upper right.
  expect(svg).toContain('d="M64 348L624 36"');
  expect(svg).toMatch(/>one<.*>two</s);
  expect(svg).toContain("stroke-dasharray");
});

test("logarithmic axes space powers of ten evenly and leave out what is not positive", () => {
  const svg = lineChart(
    [
      {
        name: "one",
        points: [
          [1, 1],
          [10, 10],
          [100, 100],
        ],
      },
    ],
    { ...options, logX: true, logY: true },
  );
  expect(svg).toContain('d="M64 348L344 192L624 36"');
});

test("a chart without points is still a chart", () => {
  expect(tagsOf(lineChart([{ name: "none", points: [] }], options))).toContain("svg");
});

test("heat maps are PNGs whose pixels are the levels, dark for large", async () => {
  const map = greyMap([0, 1, 2, 4, 0, 4], 2, 3);
  expect(map.max).toBe(4);
  const svg = await heatMaps("title", [{ title: "panel", map }]);
  tagsOf(svg);
  const [, base64] = /data:image\/png;base64,([A-Za-z0-9+/=]+)/.exec(svg)!;
  const png = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  expect([...png.subarray(0, 8)]).toEqual([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  const view = new DataView(png.buffer);
  const chunks = new Map<string, Uint8Array>();
  for (let at = 8; at < png.length; ) {
    const length = view.getUint32(at);
    chunks.set(String.fromCharCode(...png.subarray(at + 4, at + 8)), png.slice(at + 8, at + 8 + length));
    at += 12 + length;
  }
  expect([...chunks.keys()]).toEqual(["IHDR", "IDAT", "IEND"]);
  const header = new DataView(chunks.get("IHDR")!.buffer);
  expect([header.getUint32(0), header.getUint32(4)]).toEqual([3, 2]);
  const stream = new Blob([chunks.get("IDAT")! as Uint8Array<ArrayBuffer>]).stream();
  const pixels = new Uint8Array(
    await new Response(stream.pipeThrough(new DecompressionStream("deflate"))).arrayBuffer(),
  );
  expect([...pixels]).toEqual([0, 255, 191, 127, 0, 0, 255, 0]);
});

test("mean and sample standard deviation", () => {
  expect(meanAndDeviation([2, 4, 4, 4, 5, 5, 7, 9]).deviation).toBeCloseTo(2.138, 3);
  expect(spread([1, 2, 3], 1)).toBe("2.0 ± 1.0");
  expect(spread([1], 2)).toBe("1.00");
  expect(spread([], 2)).toBe("–");
});

test("bars in cells do not break a Markdown table", () => {
  expect(markdownTable({ title: "t", columns: ["a", "b"], rows: [["x|y", "1"]] })).toBe(
    "| a | b |\n| --- | ---: |\n| x\\|y | 1 |",
  );
});

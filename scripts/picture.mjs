// Draws the picture of the README, what leaving inputs out gains and what it costs, from what two commands measured:
//   npx rarefy demo --json > demo.json
//   (cd bench && node run.mjs --rounds 3 --native best --out bench.json)
//   node scripts/picture.mjs demo.json bench/bench.json        writes docs/images/gain-and-cost.svg
// Of several files of bench/run.mjs all that ran dense weights with native kernels is drawn.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readOptions } from "./options.mjs";

const { positionals } = readOptions({ allowPositionals: true });
if (positionals.length < 2) throw new Error("give demo.json and at least one bench.json");
const [demo, ...benches] = positionals.map((path) => JSON.parse(readFileSync(path, "utf8")));
const { cpu, cores } = benches[0].machine;
const speeds = benches
  .flatMap(({ summary }) => summary)
  .filter(({ id }) => !/WebAssembly|2:4/.test(id))
  .map(({ id, decodeTokensPerSecond, bytesPerToken }) => ({
    label: id
      .replace("node-llama-cpp", "llama.cpp")
      .replace(/ native dense, (.*) of inputs skipped/, " $1 skipped")
      .replace(" native", ""),
    value: decodeTokensPerSecond,
    note: `${decodeTokensPerSecond.toFixed(1)}, reading ${(bytesPerToken / 1e6).toFixed(0)} MB`,
    kind: id.includes("skipped") ? "sparse" : id.startsWith("rarefy") ? "dense" : "peer",
  }));
const costs = demo.rows.map(({ model, perplexity }) => ({
  label: model.replace("sparse", "skipped"),
  value: perplexity,
  note: perplexity.toFixed(2),
  kind: model === "dense" ? "dense" : "sparse",
}));

const width = 840;
const rowHeight = 26;
const top = 58;
const height = top + rowHeight * Math.max(speeds.length, costs.length) + 14;

/** Horizontal bars from 0, the longest `length` long. */
function panel(x, { title, subtitle, rows, labelWidth, length }) {
  const largest = Math.max(...rows.map(({ value }) => value));
  const bars = rows.map(({ label, value, note, kind }, index) => {
    const y = top + index * rowHeight;
    const long = ((length * value) / largest).toFixed(1);
    return `<text x="${x + labelWidth - 8}" y="${y + 14}" text-anchor="end">${label}</text>
<rect class="${kind}" x="${x + labelWidth}" y="${y}" width="${long}" height="18" rx="2"/>
<text x="${x + labelWidth + Number(long) + 6}" y="${y + 14}">${note}</text>`;
  });
  return `<text class="title" x="${x}" y="20">${title}</text>
<text class="quiet" x="${x}" y="40">${subtitle}</text>
${bars.join("\n")}`;
}

const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-labelledby="title">
<title id="title">What leaving inputs out gains in speed, and what it costs in perplexity</title>
<style>
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.title { font-size: 16px; font-weight: 600; }
.quiet { font-size: 12px; fill: #59636e; }
.peer { fill: #afb8c1; } .dense { fill: #6a8caf; } .sparse { fill: #d97a1e; }
@media (prefers-color-scheme: dark) { text { fill: #f0f6fc; } .quiet { fill: #9198a1; } .peer { fill: #656c76; } }
</style>
${panel(0, {
  title: "Gains: tokens a second",
  subtitle: `TinyLlama-1.1B's shape, ${cores} cores of an ${cpu.replaceAll("(R)", "").replace(" Processor", "")}`,
  rows: speeds,
  labelWidth: 168,
  length: 140,
})}
${panel(500, {
  title: "Costs: perplexity, lower is better",
  subtitle: "the 6.5 M model that comes along; small ones pay most",
  rows: costs,
  labelWidth: 102,
  length: 185,
})}
</svg>
`;
const output = join(import.meta.dirname, "../docs/images/gain-and-cost.svg");
writeFileSync(output, svg);
console.log(`${output}: ${svg.length} bytes`);

import { z } from "zod";
import { FormatError } from "../core/index.js";
import { checkSchema } from "../io/index.js";
import { type Html, html } from "./html.js";
import { linearScale, logScale, short } from "./scale.js";

/** One step of a run log: its number and what was measured in it. */
export type TrainingRecord = Readonly<Record<string, number>> & { readonly step: number };

const record = z.object({ step: z.number() }).catchall(z.number());
const shownPoints = 400;

/** The run log of `train` and `finetune`, one JSON object a line, thinned for drawing. @throws FormatError naming the line */
export function readTrainingLog(text: string, file: string): TrainingRecord[] {
  const lines = text.split("\n").filter((line) => line !== "");
  const every = Math.max(1, Math.ceil(lines.length / shownPoints));
  return lines.flatMap((line, i) => {
    if (i % every !== 0 && i !== lines.length - 1) return [];
    let raw: unknown;
    try {
      raw = JSON.parse(line);
    } catch {
      throw new FormatError({ file, field: `line ${i + 1}`, problem: "is no JSON" });
    }
    return [checkSchema(record, raw, file)];
  });
}

/** Not drawn: what tells of the machine, and the axis itself. */
const hidden = new Set(["step", "elapsedMs", "loss", "prediction"]);

/** Loss over steps, and whatever else the run measured and changed: learning rate, flip rates, densities, silent experts. */
export function trainingCurves(name: string, records: readonly TrainingRecord[]): Html | undefined {
  if (records.length < 2) return undefined;
  const changing = [...new Set(records.flatMap((record) => Object.keys(record)))].filter(
    (metric) => !hidden.has(metric) && new Set(records.map((record) => record[metric])).size > 1,
  );
  return html`<h2>Training of ${name}</h2>
<div class="charts">
${curve(records, "loss", ["loss", "prediction"])}
${changing.map((metric) => curve(records, metric, [metric]))}
</div>`;
}

const colors = ["#0072b2", "#d55e00"];
const [width, height] = [380, 230];
const plot = { left: 48, right: width - 14, top: 14, bottom: height - 40 };

function curve(records: readonly TrainingRecord[], title: string, names: readonly string[]): Html {
  const lines = names.map((name) =>
    records.flatMap(({ step, [name]: value }) => (value === undefined ? [] : [[step, value] as const])),
  );
  const values = lines.flat().map(([, value]) => value);
  const [low, high] = values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
  const x = linearScale([records[0].step, records.at(-1)!.step], [plot.left, plot.right]);
  const y = (low > 0 && high / low > 20 ? logScale : linearScale)([low, high], [plot.bottom, plot.top]);
  return html`<figure>
<figcaption>${title}</figcaption>
<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${title}">
${y.ticks.map(
  (tick) =>
    html`<line class="grid" x1="${plot.left}" x2="${plot.right}" y1="${px(y(tick))}" y2="${px(y(tick))}"/><text x="${plot.left - 6}" y="${px(y(tick) + 4)}" text-anchor="end">${short(tick)}</text>`,
)}
${x.ticks.map((tick) => html`<text x="${px(x(tick))}" y="${plot.bottom + 16}" text-anchor="middle">${short(tick)}</text>`)}
<text class="axis" x="${(plot.left + plot.right) / 2}" y="${height - 6}" text-anchor="middle">step</text>
${lines.map(
  (points, i) =>
    points.length > 0 &&
    html`<polyline fill="none" stroke="${colors[i]}" stroke-width="1.4" points="${points.map(([step, value]) => `${px(x(step))},${px(y(value))}`).join(" ")}"><title>${names[i]}</title></polyline>`,
)}
</svg>
</figure>`;
}

const px = (value: number) => Number(value.toFixed(1));

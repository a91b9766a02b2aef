import * as z from "zod/mini";
import { checkSchema } from "../core/internal.js";
import { parseJson } from "../io/index.js";
import { figure, type Html, html, lineChart } from "./figures/index.js";

/** One step of a run log: its number and what was measured in it. */
export type TrainingRecord = Readonly<Record<string, number>> & { readonly step: number };

const record = z.catchall(z.object({ step: z.number() }), z.number());
const shownPoints = 400;
const lineLimits = { depth: 4, values: 1000 };
/** Metrics that get a figure of their own. */
const shownMetrics = 24;

/** The run log of `train` and `finetune`, one JSON object a line, thinned for drawing. @throws FormatError naming the line */
export function readTrainingLog(text: string, file: string): TrainingRecord[] {
  const lines = text.split("\n").filter((line) => line !== "");
  const every = Math.max(1, Math.ceil(lines.length / shownPoints));
  return lines.flatMap((line, i) => {
    if (i % every !== 0 && i !== lines.length - 1) return [];
    return [checkSchema(record, parseJson(new TextEncoder().encode(line), `${file}, line ${i + 1}`, lineLimits), file)];
  });
}

/** Not drawn: what tells of the machine, and the axis itself. */
const hidden = new Set(["step", "elapsedMs", "loss", "prediction"]);

/** Loss over steps, and whatever else the run measured and changed: learning rate, flip rates, densities, silent experts. */
export function trainingCurves(name: string, records: readonly TrainingRecord[]): Html | undefined {
  if (records.length < 2) return undefined;
  const changing = [...new Set(records.flatMap((record) => Object.keys(record)))]
    .filter((metric) => !hidden.has(metric) && new Set(records.map((record) => record[metric])).size > 1)
    .slice(0, shownMetrics);
  return html`<h2>Training of ${name}</h2>
<div class="charts">
${curve(records, "loss", ["loss", "prediction"])}
${changing.map((metric) => curve(records, metric, [metric]))}
</div>`;
}

/** Values that span more than this are shown on a logarithmic axis. */
const wideRatio = 20;

function curve(records: readonly TrainingRecord[], title: string, names: readonly string[]): Html {
  const lines = names.map((name) => ({
    name,
    points: records.flatMap(({ step, [name]: value }) => (value === undefined ? [] : [[step, value] as const])),
  }));
  const values = lines.flatMap(({ points }) => points.map(([, value]) => value));
  const [low, high] = values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
  return figure(lineChart(lines, { title, xLabel: "step", logY: low > 0 && high / low > wideRatio }));
}

import { figure, type Html, type Line, lineChart } from "./figures/index.js";

/** What one model has in every layer; undefined where it has nothing. */
export interface LayerValues {
  name: string;
  color: string;
  values: readonly (number | undefined)[];
}

/** Values that span more than this are shown on a logarithmic axis. */
const wideRatio = 3;

/** Values over layers, one line per model, named at its end where there is room. @param range of y; left out, the values' */
export function layerLines(
  models: readonly LayerValues[],
  title: string,
  yLabel: string,
  range?: readonly [number, number],
): Html {
  const lines: Line[] = models.map(({ name, color, values }) => ({
    name,
    color,
    points: values.flatMap((value, layer) => (value === undefined ? [] : [[layer, value] as const])),
  }));
  const all = lines.flatMap(({ points }) => points.map(([, value]) => value));
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const logY = range === undefined && low > 0 && high / low > wideRatio;
  const yRange = range ?? (logY ? [low / 1.1, high * 1.1] : [Math.min(0, low), high * 1.05]);
  return figure(lineChart(lines, { title, xLabel: "layer", yLabel, logY, yRange, wholeX: true, names: "ends" }));
}

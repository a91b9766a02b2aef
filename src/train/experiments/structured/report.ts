import { meanAndDeviation, spread } from "../../../core/index.js";
import { lineChart } from "../../../report/internal.js";
import type { FinishedCell } from "../contract.js";
import { oneShots, trainedOnes } from "./contestants.js";
import type { Point, StructuredResult } from "./oneShot.js";
import type { StructuredProtocol } from "./protocol.js";

const percent = (share: number, places = 1) => `${(100 * share).toFixed(places)} %`;

export function reportStructured(cells: readonly FinishedCell[], protocol: StructuredProtocol) {
  const results = cells.map(({ result }) => result as StructuredResult);
  const [{ kind, measure, tokens }] = results;
  const { calibration, together, test, batchSize, window, rate } = protocol[kind];
  const { shares, steps, warmup, weightDecay, distil } = protocol;
  const points = results.flatMap((result) => result.points);
  const [dense] = points.filter(({ name }) => name === "dense");
  const titles = new Map(
    [...Object.entries(oneShots), ...Object.entries(trainedOnes)].map(([id, { title }]) => [id, title]),
  );
  const at = (id: string, share: number) => points.filter(({ name, share: asked }) => name === id && asked === share);
  const qualities = (found: readonly Point[]) => found.map(({ quality }) => quality);
  const rowsOf = (cell: (found: readonly Point[]) => string, ids: readonly string[] = [...titles.keys()]) =>
    ids.map((id) => [
      titles.get(id)!,
      ...shares.map((share) => (at(id, share).length === 0 ? "–" : cell(at(id, share)))),
    ]);
  const columns = ["", ...shares.map((share) => `${percent(share, 0)} asked for`)];
  return {
    protocol: [
      ["model", String(cells[0].settings.model)],
      ["budget", `of the multiply-adds of all heads and neurons, for texts of ${tokens.toFixed(1)} tokens`],
      ["Fisher", `${calibration.windows} texts of at most ${calibration.window} tokens, ${together} for each gradient`],
      [
        "training",
        `${steps} steps of ${batchSize} × ${window} tokens (DynaBERT ${steps * trainedOnes.dynabert.together!.steps}, for all widths together), AdamW (β 0.9, 0.95), ${rate} down a cosine to a tenth after ${warmup} steps, decay ${weightDecay}, clip 1; ${distil} of the loss follows the dense model's predictions`,
      ],
      ["measured", `at most ${test.windows} texts of at most ${test.window} tokens, of models that were cut, in f32`],
      [
        "repeats",
        `${new Set(cells.map(({ seed }) => seed)).size} seeds of what is trained; mean ± sample standard deviation`,
      ],
    ] as const,
    tables: [
      {
        title: `${measure.name}; dense ${dense.quality.toFixed(measure.places)}`,
        columns,
        rows: rowsOf((found) => spread(qualities(found), measure.places)),
      },
      {
        title: "multiply-adds of heads and neurons that stay",
        columns,
        rows: rowsOf((found) => percent(meanAndDeviation(found.map(({ macsShare }) => macsShare)).mean, 2)),
      },
      {
        title: "heads and neurons that stay, by layer, first seed",
        columns,
        rows: rowsOf(([{ heads, neurons }]) => `${heads.join(" ")} / ${neurons.join(" ")}`),
      },
    ],
    figures: [
      {
        name: "structured",
        title: `${measure.name} by multiply-adds`,
        picture: lineChart(
          [...titles].map(([id, name]) => ({
            name,
            points: shares
              .filter((share) => at(id, share).length > 0)
              .map((share) => [100 * share, meanAndDeviation(qualities(at(id, share))).mean] as const),
          })),
          { title: measure.name, names: "below", xLabel: "multiply-adds, %", yLabel: "" },
        ),
      },
    ],
    notes: [
      "Every figure is of a model whose units are gone, not masked, and whose multiply-adds are at most those asked for; a layer keeps one head and four neurons that give nothing.",
    ],
  };
}

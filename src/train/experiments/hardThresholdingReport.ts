import { meanAndDeviation, spread } from "../../core/index.js";
import { type GreyMap, levelPanels, lineChart } from "../../report/internal.js";
import type { ExperimentReport, Figure, FinishedCell } from "./contract.js";
import type { Protocol, RunResult, Scope, Task } from "./hardThresholding.js";

/** Published figures by density: [train, test] of each scope. */
export type Published = ReadonlyMap<number, Readonly<Record<Scope, readonly [train: number, test: number]>>>;

export interface ReportOptions {
  title: string;
  /** "RMSE", "accuracy, %". */
  metric: string;
  places: number;
  published: Published;
  protocol: Protocol;
  task: Task;
  yRange?: readonly [number, number];
  facts: readonly (readonly [string, string])[];
  notes: readonly string[];
}

const scopes = ["global", "layer"] as const;
const scopeNames = { global: "global", layer: "layer-wise" } as const;

export async function hardThresholdingReport(
  cells: readonly FinishedCell[],
  options: ReportOptions,
): Promise<ExperimentReport> {
  const { metric, places, published, protocol } = options;
  const seeds = new Set(cells.map(({ seed }) => seed)).size;
  const runs = (density: number, scope: Scope) =>
    cells
      .filter(({ settings }) => settings.density === density && (density === 1 || settings.scope === scope))
      .map(({ result }) => result as RunResult);
  const rows = protocol.densities.map((density) => [
    `${Math.round(density * 100)} %`,
    ...scopes.flatMap((scope) => {
      const of = runs(density, scope);
      const study = published.get(density)?.[scope];
      return [
        spread(
          of.map(({ train }) => train),
          places,
        ),
        spread(
          of.map(({ test }) => test),
          places,
        ),
        study === undefined ? "–" : study.map((v) => v.toFixed(places)).join(" / "),
      ];
    }),
  ]);
  const supports = protocol.densities
    .filter((density) => density < 1)
    .map((density) => [
      `${Math.round(density * 100)} %`,
      ...scopes.flatMap((scope) => {
        const of = runs(density, scope);
        const layers = of[0]?.layerDensities ?? [];
        return [
          layers.map((_, l) => percent(meanAndDeviation(of.map((run) => run.layerDensities[l])).mean)).join(" / "),
          spread(
            of.map(({ overlap }) => overlap),
            3,
          ),
        ];
      }),
    ]);
  const stops = protocol.densities.map((density) => [
    `${Math.round(density * 100)} %`,
    ...scopes.flatMap((scope) => {
      const stopped = runs(density, scope).flatMap(({ stop }) => (stop === null ? [] : [stop]));
      return [
        spread(
          stopped.map(({ step }) => step),
          0,
        ),
        spread(
          stopped.map(({ test }) => test),
          places,
        ),
      ];
    }),
  ]);
  return {
    protocol: [
      ...options.facts,
      ["optimiser", `Adam, learning rate ${protocol.rate}, ${protocol.steps} steps, batches of ${protocol.batchSize}`],
      ["projection", "after every optimiser step; biases are not counted"],
      ["repeats", `${seeds} seeds; mean ± sample standard deviation`],
    ],
    tables: [
      {
        title: `${options.title}: ${metric}`,
        columns: [
          "density",
          ...scopes.flatMap((s) => [`${scopeNames[s]} train`, `${scopeNames[s]} test`, "study, train / test"]),
        ],
        rows,
      },
      {
        title:
          "Where the weights stay: density of each layer, and share of the final support among the most often kept",
        columns: ["density", ...scopes.flatMap((s) => [`${scopeNames[s]}: layers`, `${scopeNames[s]}: overlap`])],
        rows: supports,
      },
      {
        title: "Where the study's rule, ‖w(k+1) − w(k)‖² < 0.001, would have ended training, and the test figure there",
        columns: ["density", ...scopes.flatMap((s) => [`${scopeNames[s]}: step`, `${scopeNames[s]}: test`])],
        rows: stops,
      },
    ],
    figures: [densityChart(options, runs), lossChart(options, runs), ...(await pictures(options, cells))],
    notes: options.notes,
  };
}

function densityChart(
  { title, metric, published, protocol, yRange }: ReportOptions,
  runs: (density: number, scope: Scope) => RunResult[],
): Figure {
  const measured = scopes.map((scope, color) => ({
    name: `${scopeNames[scope]}, test`,
    color,
    points: protocol.densities.map(
      (density) => [density * 100, meanAndDeviation(runs(density, scope).map(({ test }) => test)).mean] as const,
    ),
  }));
  const study = scopes.map((scope, color) => ({
    name: `${scopeNames[scope]}, test, published`,
    color,
    dashed: true,
    points: Array.from(published, ([density, row]) => [density * 100, row[scope][1]] as const),
  }));
  const picture = lineChart([...measured, ...study], {
    title,
    names: "below",
    xLabel: "density, %",
    yLabel: metric,
    yRange,
  });
  return { name: "density", title: `${metric} by density`, picture };
}

function lossChart({ title, protocol }: ReportOptions, runs: (density: number, scope: Scope) => RunResult[]): Figure {
  const shown = protocol.densities.filter((density) => [1, 0.5, 0.2, 0.1].includes(density));
  const series = shown.flatMap((density, color) =>
    scopes
      .filter((scope) => density < 1 || scope === "global")
      .map((scope) => ({
        name: density === 1 ? "dense" : `${scopeNames[scope]} ${Math.round(density * 100)} %`,
        color,
        dashed: scope === "layer",
        points: (runs(density, scope)[0]?.losses ?? []).map((loss, k) => [k * 50, loss] as const),
      })),
  );
  return {
    name: "loss",
    title: "Training loss of the first seed",
    picture: lineChart(series, {
      title: `${title}: training loss`,
      names: "below",
      xLabel: "step",
      yLabel: "loss",
      logY: true,
    }),
  };
}

async function pictures({ task, title }: ReportOptions, cells: readonly FinishedCell[]): Promise<Figure[]> {
  const { density, scope } = task.pictured;
  const found = cells.map(({ result }) => (result as RunResult).pictures).find((p) => p !== undefined);
  if (found === undefined) return [];
  const setting = `${scopeNames[scope]}, density ${Math.round(density * 100)} %`;
  const layers = (maps: readonly GreyMap[], first: number) =>
    maps.map((map, l) => ({
      title: `layer ${first + l}, ${map.cols} → ${map.rows}${map.max > 1 ? `, up to ${map.max}` : ""}`,
      map,
    }));
  return [
    {
      name: "retention",
      title: "How many steps each weight was kept",
      picture: await levelPanels(
        `${title}: steps a weight was kept (${setting})`,
        layers(found.retention, found.kept.length > found.retention.length ? 2 : 1),
      ),
    },
    {
      name: "mask",
      title: "Final mask, white = 0",
      picture: await levelPanels(`${title}: final mask (${setting})`, layers(found.kept, 1)),
    },
  ];
}

const percent = (share: number) => (share * 100).toFixed(share < 0.1 ? 1 : 0);

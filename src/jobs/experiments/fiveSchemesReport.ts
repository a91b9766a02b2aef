import { lineChart } from "../../report/internal.js";
import type { CellResult, ExperimentReport, FinishedCell } from "../../train/index.js";
import type { FiveSchemesProtocol } from "./fiveSchemesProtocol.js";
import { combinations, schemes } from "./schemes.js";
import type { Touched } from "./storedModel.js";

/** What one scheme at one strength came to. */
export interface SchemeResult extends CellResult, Touched {
  /** Perplexities before and after training; null without training. */
  oneShot: number;
  trained: number | null;
  /** Of the files of weights. */
  bytes: number;
  denseBytes: number;
  /** Tokens a second over those of the dense model. */
  speedUp: number;
  /** Weights read for a decoded token. */
  megabytesPerToken: number;
}

/** The program would not do it. */
export interface Refusal extends CellResult {
  refused: string;
}

type Outcome = SchemeResult | Refusal;
const isRefused = (outcome: Outcome): outcome is Refusal => "refused" in outcome;

/** A scheme counts as usable up to this many times the dense perplexity, and as in need of training where one shot is beyond. */
const usable = 1.5;

const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
const times = (value: number) => `${value.toFixed(2)} ×`;
const percent = (share: number) => `${(100 * share).toFixed(0)} %`;

export function reportFiveSchemes(cells: readonly FinishedCell[], protocol: FiveSchemesProtocol): ExperimentReport {
  const outcomes = (scheme: string, level: string) =>
    cells
      .filter(({ settings }) => settings.scheme === scheme && settings.level === level)
      .map(({ result }) => result as Outcome);
  /** Means over seeds; undefined where it was refused. */
  const measured = (scheme: string, level = "") => {
    const results = outcomes(scheme, level).filter((outcome) => !isRefused(outcome)) as SchemeResult[];
    if (results.length === 0) return undefined;
    const over = (of: (result: SchemeResult) => number) => mean(results.map(of));
    return {
      ratio: over(({ bytes, denseBytes }) => denseBytes / bytes),
      oneShot: over(({ oneShot }) => oneShot),
      trained: results[0].trained === null ? undefined : over(({ trained }) => trained!),
      quality: over(({ oneShot, trained }) => Math.min(oneShot, trained ?? oneShot)),
      speedUp: over(({ speedUp }) => speedUp),
      megabytes: over(({ megabytesPerToken }) => megabytesPerToken),
      changed: over(({ changed }) => changed),
      zeroed: over(({ zeroed }) => zeroed),
      gone: over(({ gone }) => gone),
    };
  };
  const dense = measured("dense")!;
  const levelsOf = (scheme: string) =>
    Object.keys(schemes[scheme]).flatMap((level) => {
      const found = measured(scheme, level);
      return found ? [{ level, ...found }] : [];
    });
  const partners = (scheme: string) => Object.keys(combinations).filter((name) => name.split(" + ").includes(scheme));
  const summary = Object.keys(schemes).map((scheme) => {
    const levels = levelsOf(scheme);
    const good = levels.filter(({ quality }) => quality <= usable * dense.quality);
    const best = good.toSorted((a, b) => b.ratio - a.ratio)[0];
    const last = levels.at(-1);
    const others = partners(scheme);
    return [
      scheme,
      best === undefined ? "none" : `${times(best.ratio)} (${best.level})`,
      levels.some(({ oneShot }) => oneShot > usable * dense.quality) ? "yes" : "no",
      levels.map(({ level, ratio }) => `${level}: ${times(ratio)}`).join(", "),
      last === undefined
        ? "–"
        : `${percent(last.changed)} changed, ${percent(last.zeroed)} to 0, ${percent(last.gone)} gone`,
      best === undefined ? "–" : times(best.speedUp),
      best === undefined ? "–" : times(best.quality / dense.quality),
      `${others.filter((name) => measured(name) !== undefined).length} of ${others.length}`,
    ];
  });
  const row = (name: string, level: string) => {
    const found = measured(name, level);
    if (found === undefined) {
      const refusal = outcomes(name, level).find(isRefused);
      return [
        `${name}${level && `, ${level}`}`,
        "–",
        "–",
        "–",
        "–",
        "–",
        refusal ? `refused: ${refusal.refused}` : "–",
      ];
    }
    const { ratio, oneShot, trained, speedUp, megabytes, quality } = found;
    return [
      `${name}${level && `, ${level}`}`,
      times(ratio),
      oneShot.toFixed(2),
      trained === undefined ? "–" : trained.toFixed(2),
      times(speedUp),
      megabytes.toFixed(2),
      times(quality / dense.quality),
    ];
  };
  const columns = ["", "ratio", "one shot", "trained", "speed-up", "MB a token", "of the dense perplexity"];
  const { steps, batch, window, rate, calibration, evaluation } = protocol;
  const chart = (title: string, xLabel: string, of: (found: { ratio: number; speedUp: number }) => number) =>
    lineChart(
      Object.keys(schemes).map((scheme) => ({
        name: scheme,
        points: [dense, ...levelsOf(scheme)]
          .map((found): [number, number] => [of(found), found.quality])
          .sort(([a], [b]) => a - b),
      })),
      { title, names: "below", xLabel, yLabel: "perplexity" },
    );
  return {
    protocol: [
      ["model", `${cells[0].settings.model}`],
      ["training", `${steps} steps of ${batch} × ${window} tokens, learning rate ${rate}`],
      ["one shot", `calibrated on ${calibration.windows} windows of ${calibration.window} tokens`],
      ["perplexity", `at most ${evaluation.maxWindows} windows of ${evaluation.window} tokens`],
      ["speed-up", "tokens a second in decoding, in turn with the dense model in bf16, one thread"],
    ],
    tables: [
      {
        title: "The five schemes",
        columns: [
          "scheme",
          `highest ratio within ${usable} × dense`,
          "needs training",
          "ratios",
          "touches",
          "speed-up",
          "of the dense perplexity",
          "goes with",
        ],
        rows: summary,
      },
      {
        title: "At every strength",
        columns,
        rows: [
          row("dense", ""),
          ...Object.entries(schemes).flatMap(([scheme, levels]) =>
            Object.keys(levels).map((level) => row(scheme, level)),
          ),
        ],
      },
      { title: "Two together", columns, rows: Object.keys(combinations).map((name) => row(name, "")) },
    ],
    figures: [
      {
        name: "ratio",
        title: "Perplexity by ratio",
        picture: chart("Perplexity by ratio", "ratio", ({ ratio }) => ratio),
      },
      {
        name: "speed-up",
        title: "Perplexity by speed-up",
        picture: chart("Perplexity by speed-up", "speed-up in decoding", ({ speedUp }) => speedUp),
      },
    ],
    notes: [
      "The ratio is that of the files of weights, dense ones included: embeddings and norms stay as they are in all schemes.",
      "Where training at the one rate of all made a model worse, its quality is that of one shot.",
      `A scheme needs training where one of its strengths is beyond ${usable} × the dense perplexity in one shot.`,
      "What is touched is counted in one shot at the last strength, over all numbers of the model; matrices that became pairs, and layers that were dropped, are gone.",
    ],
  };
}

import { meanAndDeviation, spread } from "../../core/index.js";
import { lineChart } from "../../report/internal.js";
import type { CellResult, FinishedCell } from "./contract.js";
import { contestants, publishedDense } from "./recoveryContestants.js";
import type { RecoveryProtocol } from "./recoveryProtocol.js";
import type { RecoveryRun } from "./recoveryTraining.js";

export interface PatternCheck {
  zeros: number;
  weights: number;
  /** Groups of four along a row, and those of them with more than two that are not zero. */
  groups: number;
  broken: number;
}

export interface RecoveryResult extends CellResult, RecoveryRun {
  /** Trained on. */
  tokens: number;
  /** Of the weights at the end, zeros made exact. */
  perplexity: number;
  /** Of the linear weights of the blocks. */
  pattern: PatternCheck;
}

export function reportRecovery(cells: readonly FinishedCell[], protocol: RecoveryProtocol) {
  const results = (name: string) =>
    cells.filter(({ settings }) => settings.name === name).map(({ result }) => result as RecoveryResult);
  const names = Object.keys(contestants);
  const perplexityOf = (name: string) => meanAndDeviation(results(name).map(({ perplexity }) => perplexity)).mean;
  const untrained = results("dense")[0].curve[0][1];
  const dense = perplexityOf("dense");
  const { steps, batchSize, window, rate, finalRate, warmup, weightDecay, calibration } = protocol;
  const millions = (tokens: number) => (tokens === 0 ? "–" : `${(tokens / 1e6).toPrecision(3)} M`);
  const times = (value: number, reference: number) => `${(value / reference).toFixed(3)}`;

  const row = (name: string): string[] => {
    const runs = results(name);
    const [{ pattern, tokens, drift }] = runs;
    const { published } = contestants[name];
    return [
      contestants[name].title,
      millions(tokens),
      spread(
        runs.map(({ perplexity }) => perplexity),
        3,
      ),
      times(perplexityOf(name), untrained),
      times(perplexityOf(name), dense),
      `${((100 * pattern.zeros) / pattern.weights).toFixed(2)} %`,
      name === "dense" ? "–" : `${pattern.broken} of ${pattern.groups}`,
      drift === null ? "–" : `${(100 * drift).toFixed(1)} %`,
      published === undefined
        ? "–"
        : `${published.method}, ${published.tokens}: ${published.perplexity} (${times(published.perplexity, publishedDense)})`,
    ];
  };
  const trained = names.filter((name) => contestants[name].training !== undefined);
  const curves = (points: (result: RecoveryResult) => [number, number][]) =>
    trained.map((name) => ({ name: contestants[name].title, points: points(results(name)[0]) }));
  return {
    protocol: [
      ["model", `${cells[0].settings.model}`],
      [
        "training",
        `${steps} steps of ${batchSize} × ${window} tokens, AdamW (β 0.9, 0.95), clip 1, decay ${weightDecay}`,
      ],
      ["learning rate", `${rate}, down a cosine to ${finalRate} after ${warmup} steps of warm-up`],
      [
        "pattern",
        "2:4 along the rows of every linear map of the blocks; embedding and norms are trained and stay dense",
      ],
      ["SparseGPT", `calibrated on ${calibration.windows} windows of ${calibration.window} tokens`],
      ...trained.map((name) => {
        const { method, options, rate: factor = 1 } = contestants[name].training!;
        const slower = factor === 1 ? "" : `, learning rate × ${Number(factor.toPrecision(3))}`;
        return [contestants[name].title, `method ${method} ${JSON.stringify(options)}${slower}`] as const;
      }),
    ] as const,
    tables: [
      {
        title: "Perplexity in 2:4",
        columns: [
          "method",
          "tokens",
          "perplexity",
          "× dense untouched",
          "× dense trained on",
          "zeros",
          "groups of 4 with more than 2",
          "mask drift",
          "published, LLaMA2-7B (× dense)",
        ],
        rows: [
          [
            "dense, untouched",
            "–",
            untrained.toFixed(3),
            "1.000",
            times(untrained, dense),
            "0.00 %",
            "–",
            "–",
            `dense: ${publishedDense}`,
          ],
          ...names.map(row),
        ],
      },
    ],
    figures: [
      {
        name: "perplexity",
        title: "Perplexity on the evaluation text over the run",
        picture: lineChart(
          curves(({ curve }) => curve.map(([tokens, perplexity]) => [tokens / 1e6, perplexity])),
          { title: "2:4 recovery", names: "below", xLabel: "million tokens", yLabel: "perplexity" },
        ),
      },
      {
        name: "loss",
        title: "Training loss",
        picture: lineChart(
          curves(({ losses, tokens }) => losses.map((loss, k) => [((k + 0.5) * tokens) / losses.length / 1e6, loss])),
          { title: "2:4 recovery: training loss", names: "below", xLabel: "million tokens", yLabel: "nats a token" },
        ),
      },
    ],
    notes: [
      "Over the run the perplexity is that of what the forward pass multiplies with: CAST's is dense until its end, where the last mask prunes it.",
      "The published figures are another model and another text, with 1.1 to 1.4 tokens for every weight; compare the order and the ratio to dense. CAST is published with distillation from the dense model, which is not done here.",
    ],
  };
}

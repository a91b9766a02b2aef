import { breathe, median } from "../../core/index.js";
import { lineChart } from "../../report/internal.js";
import { classificationData, Vocabulary } from "../data/labelledText.js";
import { encoderObjective } from "../engine/open.js";
import { clusterPlan } from "../models/clusterOptions.js";
import { centroidControl } from "../models/clusterParameters.js";
import { encoderClusters, initialEncoder } from "../models/encoderParameters.js";
import type { Batch, Objective } from "../objective.js";
import { randomFor } from "../seeds.js";
import type { Values } from "../values.js";
import { flat, labelsOf, readLabelled } from "./classification.js";
import { joinedTexts, vocabularySize } from "./clusteredClassifier.js";
import { type EncoderNetwork, encoders } from "./clusteredProtocol.js";
import type { Cell, CellOptions, CellResult, Experiment, FinishedCell, Scale } from "./contract.js";

interface Protocol {
  network: EncoderNetwork;
  lengths: readonly number[];
  repeats: number;
}

const network = { hiddenSize: 64, feedForwardSize: 128, heads: 4, blocks: 1 };
const lengths = [256, 512, 1024, 2048, 4096];
const protocols: Readonly<Record<Scale, Protocol>> = {
  smoke: { network: { hiddenSize: 8, feedForwardSize: 8, heads: 2, blocks: 1 }, lengths: [16, 64], repeats: 1 },
  laptop: { network, lengths, repeats: 7 },
  gpu: { network, lengths, repeats: 21 },
};

/** Milliseconds of every round. */
interface Times {
  forward: number[];
  step: number[];
}

interface TimeResult extends CellResult {
  times: Record<string, Times>;
}

export const experiment: Experiment = {
  id: "clustered-attention-time",
  title: "Time of attention by clusters",
  description:
    "How long one encoder block takes for a document of 256 to 4096 words, forward and with its gradient, where words attend to all, to their neighbourhood, by Routing Transformer and by ClusterFormer; all in turn in one run.",
  seeds: { smoke: 1, laptop: 1, gpu: 1 },
  texts: ["subj.train.tsv"],
  timed: true,
  plan: (scale, seeds) =>
    Array.from({ length: seeds }, (_, seed) =>
      protocols[scale].lengths.map((length) => ({
        key: `words-${length}-seed${seed}`,
        seed,
        settings: { scale, length },
      })),
    ).flat(),
  run: measure,
  report: async (cells, scale) => report(cells, protocols[scale]),
};

interface Timed {
  kind: string;
  objective: Objective;
  weights: Values;
  batch: Batch;
  times: Times;
}

async function measure(cell: Cell, { signal, readText, device }: CellOptions): Promise<TimeResult> {
  const { scale, length } = cell.settings as { scale: Scale; length: number };
  const { network, repeats } = protocols[scale];
  const texts = await readLabelled("subj", "train", readText);
  const labels = labelsOf(texts);
  const documents = joinedTexts(texts, 1, length, cell.seed, "timed");
  const vocabulary = new Vocabulary(
    texts.map(({ text }) => text),
    vocabularySize,
  );
  const document = flat(classificationData(documents, labels, vocabulary, length, "subj.train.tsv"));
  const models: Timed[] = [];
  try {
    for (const [kind, { clusters }] of Object.entries(encoders)) {
      const options = clusters?.(network.heads, network.blocks);
      const config = { ...network, length, vocabSize: vocabulary.size, classes: labels.length, clusters: options };
      const clustered = encoderClusters(config);
      const control = clustered && centroidControl(clustered.plan, clustered.sizes, randomFor(cell.seed, "centroids"));
      models.push({
        kind,
        objective: await encoderObjective(config, device),
        weights: initialEncoder(config, randomFor(cell.seed, "weights")),
        batch: { ...document, ...control?.arrays() },
        times: { forward: [], step: [] },
      });
    }
    // The first round compiles and is not counted.
    for (let round = 0; round <= repeats; round++) {
      for (const { objective, weights, batch, times } of models) {
        await breathe(signal);
        const startMs = performance.now();
        await objective.predict(weights, batch);
        const middleMs = performance.now();
        await objective.lossAndGradients(weights, batch);
        if (round === 0) continue;
        times.forward.push(middleMs - startMs);
        times.step.push(performance.now() - middleMs);
      }
    }
  } finally {
    for (const { objective } of models) objective[Symbol.dispose]();
  }
  return { times: Object.fromEntries(models.map(({ kind, times }) => [kind, times])) };
}

/** Scores that a block computes, of those of dense attention: a neighbourhood is three of its sizes wide before its edges are cut. */
function scoreShare(kind: string, length: number, { heads, blocks }: EncoderNetwork): number {
  const options = encoders[kind].clusters?.(heads, blocks);
  if (options === undefined) return 1;
  const { localHeads, size, neighbours } = clusterPlan(options, length, heads);
  return (localHeads * 3 * size + (heads - localHeads) * size * (neighbours ? 3 : 1)) / (heads * length);
}

function report(cells: readonly FinishedCell[], { network, lengths, repeats }: Protocol) {
  const kinds = Object.keys(encoders);
  const timesOf = (length: number, kind: string) => {
    const found = cells.filter(({ settings }) => settings.length === length).map(({ result }) => result as TimeResult);
    const joined = (part: keyof Times) => found.flatMap(({ times }) => times[kind][part]);
    return { forward: joined("forward"), step: joined("step") };
  };
  /** Of the rounds, each beside dense attention in the same round. */
  const ratio = (length: number, kind: string, part: keyof Times) => {
    const own = timesOf(length, kind)[part];
    return median(timesOf(length, "dense")[part].map((dense, round) => dense / own[round]));
  };
  const table = (part: keyof Times, title: string) => ({
    title,
    columns: ["words", ...kinds.flatMap((kind) => [`${encoders[kind].title}, ms`, ...(kind === "dense" ? [] : ["×"])])],
    rows: lengths.map((length) => [
      String(length),
      ...kinds.flatMap((kind) => [
        median(timesOf(length, kind)[part]).toFixed(1),
        ...(kind === "dense" ? [] : [ratio(length, kind, part).toFixed(2)]),
      ]),
    ]),
  });
  const begins = (kind: string) => lengths.find((length) => ratio(length, kind, "step") > 1);
  return {
    protocol: [
      [
        "network",
        `one document, ${network.blocks} encoder block, ${network.hiddenSize} wide, feed-forward ${network.feedForwardSize}, ${network.heads} heads, and the linear output`,
      ],
      ["documents", "sentences of subj joined until the length is reached"],
      [
        "time",
        `elapsed, one thread; median of ${repeats} rounds in which all take turns, behind one that compiles; × is how many times faster than dense in the same round, its median`,
      ],
    ] as const,
    tables: [
      table("forward", "Forward pass"),
      table("step", "Loss and gradients"),
      {
        title: "Scores computed, % of dense",
        columns: ["words", ...kinds.map((kind) => encoders[kind].title)],
        rows: lengths.map((length) => [
          String(length),
          ...kinds.map((kind) => (100 * scoreShare(kind, length, network)).toFixed(1)),
        ]),
      },
    ],
    figures: [
      {
        name: "step",
        title: "Time of a training step by length",
        picture: lineChart(
          kinds.map((kind) => ({
            name: encoders[kind].title,
            points: lengths.map((length) => [length, median(timesOf(length, kind).step)] as const),
          })),
          { title: "Loss and gradients", names: "below", xLabel: "words", yLabel: "ms", logX: true, logY: true },
        ),
      },
    ],
    notes: [
      `A training step is faster than dense from these lengths on: ${kinds
        .filter((kind) => kind !== "dense")
        .map((kind) => `${encoders[kind].title} ${begins(kind) ?? "at none of them"}`)
        .join(", ")}.`,
      "The embedding, the maps and the feed-forward part are in the times: they grow with the length, and bound the ratio.",
    ],
  };
}

import { spread } from "../../core/index.js";
import { type CharactersResult, charactersFile, trainClusteredCharacters } from "./clusteredCharacters.js";
import { type ClassifierResult, trainClusteredClassifier } from "./clusteredClassifier.js";
import { type ClusteredProtocol, decoders, encoders, protocols } from "./clusteredProtocol.js";
import type { Cell, Experiment, FinishedCell, Scale } from "./contract.js";

const datasets = ["subj", "mr"];

export const experiment: Experiment = {
  id: "clustered-attention",
  title: "Attention by clusters",
  description:
    "Encoders that classify sentences (subj, mr), and documents joined from them, whose words attend to all, to their neighbourhood, to those that share a centroid (Routing Transformer) or a sorted block (ClusterFormer); and character models with the causal forms. clustered-attention-time measures what it costs.",
  seeds: { smoke: 1, laptop: 3, gpu: 3 },
  texts: [...datasets.flatMap((name) => [`${name}.train.tsv`, `${name}.test.tsv`]), charactersFile],
  plan(scale, seeds) {
    const { classification } = protocols[scale];
    const cells: Cell[] = [];
    for (let seed = 0; seed < seeds; seed++) {
      const add = (key: string, settings: Cell["settings"]) =>
        cells.push({ key: `${key}-seed${seed}`, seed, settings: { scale, ...settings } });
      for (const kind of Object.keys(decoders)) add(`characters-${kind}`, { task: "characters", kind });
      for (const length of Object.keys(classification.lengths).map(Number)) {
        for (const dataset of classification.datasets) {
          for (const kind of Object.keys(encoders)) {
            add(`${dataset}-${length}-${kind}`, { task: "classification", dataset, length, kind });
          }
        }
      }
    }
    return cells;
  },
  run(cell, options) {
    const { task, scale } = cell.settings as { task: string; scale: Scale };
    const { classification, characters } = protocols[scale];
    return task === "characters"
      ? trainClusteredCharacters(cell, characters, options)
      : trainClusteredClassifier(cell, classification, options);
  },
  report: async (cells, scale) => report(cells, protocols[scale]),
};

function report(cells: readonly FinishedCell[], { classification, characters }: ClusteredProtocol) {
  const of = <T>(wanted: Cell["settings"]) =>
    cells
      .filter(({ settings }) => Object.entries(wanted).every(([name, value]) => settings[name] === value))
      .map(({ result }) => result as T);
  const { network, lengths, embedding, rate } = classification;
  const kinds = Object.entries(encoders);
  const accuracies = (part: "train" | "test", title: string) => ({
    title,
    columns: ["data", "words", "texts", ...kinds.map(([, { title }]) => title)],
    rows: Object.keys(lengths).flatMap((length) =>
      classification.datasets.map((dataset) => {
        const at = { task: "classification", dataset, length: Number(length) };
        const [first] = of<ClassifierResult>(at);
        return [
          dataset,
          length,
          first[`${part}Texts`].toLocaleString("en"),
          ...kinds.map(([kind]) =>
            spread(
              of<ClassifierResult>({ ...at, kind }).map((result) => result[part]),
              2,
            ),
          ),
        ];
      }),
    ),
  });
  return {
    protocol: [
      [
        "encoder",
        `${network.blocks} blocks, ${network.hiddenSize} wide, feed-forward ${network.feedForwardSize}, ${network.heads} heads, words of deviation ${embedding}; all positions into the linear output`,
      ],
      [
        "its training",
        `Adam, learning rate ${rate}, cosine to a tenth; ${Object.entries(lengths)
          .map(([words, { batchSize, epochs }]) => `${words} words: ${epochs} epochs, batches of ${batchSize}`)
          .join("; ")}`,
      ],
      [
        "longer texts",
        "sentences of one class, drawn at random and joined until the length is reached: easier than a sentence",
      ],
      [
        "clusters",
        "the largest divisor of the length that is not above its root; half of the heads local with routing, none with ClusterFormer; centroids keep 0.999",
      ],
      [
        "character model",
        `Llama over characters, ${characters.layers} layers, ${characters.hiddenSize} wide, ${characters.heads} heads, windows of ${characters.window}; half of the heads form clusters in the upper half of the layers; ${characters.steps} steps of ${characters.batchSize} windows, AdamW at ${characters.rate}`,
      ],
      ["repeats", `${new Set(cells.map(({ seed }) => seed)).size} seeds; mean ± sample standard deviation`],
    ] as const,
    tables: [
      accuracies("test", "Test accuracy, %"),
      accuracies("train", "Training accuracy, %"),
      {
        title: "Character model, held-out tenth",
        columns: ["attention", "nats a character", "perplexity", "nats where nothing later is known", "perplexity"],
        rows: Object.entries(decoders).map(([kind, { title }]) => {
          const results = of<CharactersResult>({ task: "characters", kind });
          const column = (read: (result: CharactersResult) => number, places: number) =>
            spread(results.map(read), places);
          return [
            title,
            column(({ testLoss }) => testLoss, 4),
            column(({ testLoss }) => Math.exp(testLoss), 3),
            column(({ causalLoss }) => causalLoss, 4),
            column(({ causalLoss }) => Math.exp(causalLoss), 3),
          ];
        }),
      },
    ],
    figures: [],
    notes: [
      "Routing as published chooses the tokens of a cluster among all of a window, so that a character is predicted with some knowledge of those behind it. The last two columns have its weights and centroids at work with the nearest centroid for each character instead, which knows nothing of them; they are the ones to compare.",
      "Published: ClusterFormer's average over six classification tasks is 88.24 against 87.38 for the Transformer; Routing Transformer has a perplexity of 15.8 on WikiText-103. Those models are larger by three to four orders of magnitude.",
    ],
  };
}

import type { ClusterOptions } from "../models/clusterOptions.js";
import type { EncoderConfig } from "../models/encoderParameters.js";
import type { CharacterModelSize } from "./characterModel.js";
import type { Scale } from "./contract.js";

/** How tokens of a compared model attend; "dense" has no options. */
export interface Contestant {
  title: string;
  clusters?(heads: number, layers: number): ClusterOptions;
}

/** Of the encoder. Local heads alone are what shows whether the clusters add anything. */
export const encoders: Readonly<Record<string, Contestant>> = {
  dense: { title: "dense" },
  local: { title: "local heads only", clusters: (heads) => ({ kind: "nearest", localHeads: heads }) },
  routing: { title: "Routing Transformer", clusters: () => ({ kind: "routing" }) },
  clusterformer: { title: "ClusterFormer", clusters: () => ({ kind: "clusterformer" }) },
  neighbours: {
    title: "ClusterFormer, with neighbours",
    clusters: () => ({ kind: "clusterformer", neighbours: true }),
  },
};

/** Of the character model: half of the heads are local, and the lower half of the layers altogether. */
const upper = (heads: number, layers: number) => ({
  localHeads: Math.floor(heads / 2),
  firstBlock: Math.floor(layers / 2),
});
export const decoders: Readonly<Record<string, Contestant>> = {
  dense: encoders.dense,
  local: encoders.local,
  routing: {
    title: "Routing Transformer, as published",
    clusters: (heads, layers) => ({ kind: "routing", sharedKeys: true, ...upper(heads, layers) }),
  },
  nearest: {
    title: "nearest centroid",
    clusters: (heads, layers) => ({ kind: "nearest", sharedKeys: true, ...upper(heads, layers) }),
  },
  clusterformer: {
    title: "ClusterFormer, causal",
    clusters: (heads, layers) => ({ kind: "clusterformer", ...upper(heads, layers) }),
  },
};

export type EncoderNetwork = Pick<EncoderConfig, "hiddenSize" | "feedForwardSize" | "heads" | "blocks">;

export interface Classification {
  network: EncoderNetwork;
  /** By words of a text: how it is made and learnt. */
  lengths: Readonly<Record<number, { batchSize: number; epochs: number; documents?: { train: number; test: number } }>>;
  datasets: readonly string[];
  embedding: number;
  rate: number;
  /** Training texts at most, of those that are not joined. */
  maxTexts: number;
}

export interface Characters extends CharacterModelSize {
  steps: number;
  rate: number;
  testWindows: number;
}

export interface ClusteredProtocol {
  classification: Classification;
  characters: Characters;
}

const all = Number.POSITIVE_INFINITY;
export const protocols: Readonly<Record<Scale, ClusteredProtocol>> = {
  smoke: {
    classification: {
      network: { hiddenSize: 8, feedForwardSize: 16, heads: 2, blocks: 1 },
      lengths: {
        16: { batchSize: 20, epochs: 1 },
        64: { batchSize: 5, epochs: 1, documents: { train: 20, test: 10 } },
      },
      datasets: ["subj"],
      embedding: 1,
      rate: 3e-3,
      maxTexts: 60,
    },
    characters: {
      ...{ layers: 2, hiddenSize: 8, intermediateSize: 16, heads: 2, window: 16, batchSize: 2 },
      ...{ steps: 3, rate: 3e-3, testWindows: 4 },
    },
  },
  laptop: {
    classification: {
      network: { hiddenSize: 64, feedForwardSize: 128, heads: 4, blocks: 2 },
      lengths: {
        64: { batchSize: 50, epochs: 3 },
        256: { batchSize: 20, epochs: 4, documents: { train: 2000, test: 1000 } },
      },
      datasets: ["subj", "mr"],
      embedding: 1 / 8,
      rate: 1e-3,
      maxTexts: all,
    },
    characters: {
      ...{ layers: 2, hiddenSize: 64, intermediateSize: 128, heads: 4, window: 256, batchSize: 4 },
      ...{ steps: 1500, rate: 3e-3, testWindows: 128 },
    },
  },
  gpu: {
    classification: {
      network: { hiddenSize: 128, feedForwardSize: 256, heads: 4, blocks: 4 },
      lengths: {
        64: { batchSize: 50, epochs: 6 },
        256: { batchSize: 20, epochs: 8, documents: { train: 4000, test: 1000 } },
        1024: { batchSize: 8, epochs: 8, documents: { train: 2000, test: 1000 } },
      },
      datasets: ["subj", "mr"],
      embedding: 1 / 8,
      rate: 1e-3,
      maxTexts: all,
    },
    characters: {
      ...{ layers: 4, hiddenSize: 128, intermediateSize: 256, heads: 4, window: 1024, batchSize: 8 },
      ...{ steps: 5000, rate: 2e-3, testWindows: 32 },
    },
  },
};

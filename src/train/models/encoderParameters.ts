import type { BlockSpec, EmbeddingSpec } from "../../arch/index.js";
import { layerNorm, linearMap, type Part, plain, postNorm, stored } from "../../arch/internal.js";
import type { Random } from "../../core/index.js";
import type { FloatArray, ParameterInfo } from "../values.js";
import { type ClusterOptions, clusterPlan } from "./clusterOptions.js";
import { type ClusteredSizes, clusterParameters, initialClusters } from "./clusterParameters.js";
import { blockParameters } from "./parameters.js";

export interface EncoderConfig {
  vocabSize: number;
  /** Tokens of a document; shorter ones are filled up with token 0. */
  length: number;
  hiddenSize: number;
  feedForwardSize: number;
  heads: number;
  blocks: number;
  classes: number;
  /** Attention in which words see those of their cluster alone. Default: all words. */
  clusters?: ClusterOptions;
}

/** The plan of an encoder's clusters and the sizes that they are made for; undefined where all words see all. */
export function encoderClusters({ clusters, length, heads, blocks, hiddenSize }: EncoderConfig) {
  if (clusters === undefined) return undefined;
  const sizes: ClusteredSizes = { blocks, hiddenSize, heads, width: hiddenSize / heads };
  return { plan: clusterPlan(clusters, length, heads), sizes };
}

/** ε of the norms. */
const encoderEpsilon = 1e-5;

/** Words without their positions, which are fixed: `sinusoids`. */
export const encoderEmbedding = ({ vocabSize, hiddenSize }: EncoderConfig): EmbeddingSpec => ({
  table: { tensor: "embedding.weight", shape: [vocabSize, hiddenSize] },
});

/** The blocks as steps. Attention has no output projection, as in the study of sparse optimisation that the model stands for. */
export function encoderBlocks({ blocks, hiddenSize, feedForwardSize, heads }: EncoderConfig): BlockSpec[] {
  const width = hiddenSize / heads;
  const unit = { kind: "heads", group: "attention", axis: "rows", count: heads } as const;
  const ofBlock = (at: string): BlockSpec => {
    const norm = (name: string) => layerNorm(`${at}.${name}`, hiddenSize, encoderEpsilon);
    const attention: Part = (from, { into }) => [
      {
        do: "linear",
        of: from,
        site: { id: "attentionInput", width: hiddenSize },
        maps: ["q", "k", "v"].map((name) => ({
          map: linearMap(name, hiddenSize, hiddenSize, stored(`${at}.${name}`, true), { units: [unit] }),
          into: name,
        })),
      },
      {
        do: "attend",
        q: "q",
        k: "k",
        v: "v",
        into: "attended",
        heads,
        kv: { heads, k: width, v: width },
        scale: 1 / Math.sqrt(width),
        sight: { kind: "all" },
      },
      { do: "add", of: "attended", into },
    ];
    const mlp = plain(
      { hiddenSize, intermediateSize: feedForwardSize },
      { up: stored(`${at}.up`, true), down: stored(`${at}.down`, true) },
      { f: "relu" },
    );
    return postNorm([norm("attention_norm"), norm("output_norm")], attention, mlp);
  };
  return Array.from({ length: blocks }, (_, b) => ofBlock(`blocks.${b}`));
}

/** What the clustering of an encoder learns, behind everything else. */
const clusteringOf = (config: EncoderConfig): ParameterInfo[] => {
  const clustered = encoderClusters(config);
  return clustered === undefined ? [] : clusterParameters(clustered.plan, clustered.sizes);
};

export function encoderParameters(config: EncoderConfig): ParameterInfo[] {
  const { vocabSize, length, hiddenSize, blocks, classes } = config;
  const outputs = [classes, length * hiddenSize];
  return [
    { name: "embedding.weight", shape: [vocabSize, hiddenSize], layer: "", role: "dense" },
    ...encoderBlocks(config).flatMap((block, b) => blockParameters(block, b)),
    { name: "classifier.weight", shape: outputs, layer: String(blocks), role: "outer" },
    { name: "classifier.bias", shape: [classes], layer: "", role: "dense" },
    ...clusteringOf(config),
  ];
}

/**
 * Linear maps uniform in ±1/√in, norms 1, biases 0, the embedding normal.
 * @param deviation of the embedding. Positions have about 0.7: words far below that take long to be told apart, words above it
 * are learnt by heart sooner.
 */
export function initialEncoder(config: EncoderConfig, random: Random, deviation = 1): Map<string, FloatArray> {
  const clustering = clusteringOf(config);
  // Drawn last, so that everything else begins as it does without them.
  const others = encoderParameters({ ...config, clusters: undefined });
  const weights = new Map<string, FloatArray>(
    others.map(({ name, shape, role }) => {
      const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
      if (name === "embedding.weight") return [name, values.map(() => deviation * random.normal())];
      if (role !== "dense") return [name, values.map(() => (2 * random.uniform() - 1) / Math.sqrt(shape[1]))];
      return [name, values.fill(name.endsWith("norm.weight") ? 1 : 0)];
    }),
  );
  for (const [name, values] of initialClusters(clustering, random)) weights.set(name, values);
  return weights;
}

/** Positions as sines and cosines of falling frequency: f32 [length, width] (Vaswani et al. 2017). */
export function sinusoids(length: number, width: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: length * width }, (_, i) => {
    const [position, column] = [Math.floor(i / width), i % width];
    const angle = position / 10_000 ** ((column - (column % 2)) / width);
    return column % 2 === 0 ? Math.sin(angle) : Math.cos(angle);
  });
}

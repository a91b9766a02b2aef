import type { EncoderConfig } from "../../models/encoderParameters.js";
import type { ParameterInfo } from "../../values.js";
import { Layout, type Place, type Plan } from "./plan.js";

interface NormPlan {
  weight: Place;
  bias: Place;
}

export interface EncoderBlockPlan {
  /** Query, key and value maps, one below the other, and their biases. */
  qkv: Place;
  qkvBias: Place;
  up: Place;
  upBias: Place;
  down: Place;
  downBias: Place;
  attentionNorm: NormPlan;
  outputNorm: NormPlan;
}

export interface EncoderPlan extends Plan {
  blocks: readonly EncoderBlockPlan[];
  /** Its rows, and those of its bias, filled up with zeros to a multiple of four. */
  classifier: Place;
  classifierBias: Place;
}

/** Lays out an encoder for the hand-written step. @returns undefined for sizes that are not multiples of four */
export function planEncoder(config: EncoderConfig, parameters: readonly ParameterInfo[]): EncoderPlan | undefined {
  const { length, hiddenSize, feedForwardSize, heads } = config;
  const layout = new Layout(parameters);
  const norm = (name: string): NormPlan => ({
    weight: layout.place([`${name}.weight`]),
    bias: layout.place([`${name}.bias`]),
  });
  const block = (b: number): EncoderBlockPlan => {
    const place = (kind: "weight" | "bias", ...parts: string[]) =>
      layout.place(parts.map((part) => `blocks.${b}.${part}.${kind}`));
    return {
      qkv: place("weight", "q", "k", "v"),
      up: place("weight", "up"),
      down: place("weight", "down"),
      qkvBias: place("bias", "q", "k", "v"),
      upBias: place("bias", "up"),
      downBias: place("bias", "down"),
      attentionNorm: norm(`blocks.${b}.attention_norm`),
      outputNorm: norm(`blocks.${b}.output_norm`),
    };
  };
  const embedding = layout.place(["embedding.weight"]);
  const blocks = Array.from({ length: config.blocks }, (_, b) => block(b));
  const classifier = layout.place(["classifier.weight"], 4);
  const classifierBias = layout.place(["classifier.bias"], 4);
  const sizes = [length, hiddenSize, feedForwardSize, hiddenSize / heads];
  if (!layout.isComplete || sizes.some((size) => size % 4 !== 0)) return undefined;
  return { embedding, blocks, classifier, classifierBias, offsets: layout.offsets, length: layout.length };
}

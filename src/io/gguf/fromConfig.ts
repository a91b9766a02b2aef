import { families, findStep, type GgufFamily, type ModelConfig, type RopeSpec } from "../../arch/index.js";
import { yarnTemperature } from "../../arch/internal.js";
import { UsageError } from "../../core/index.js";
import type { TypedValue } from "./headerBytes.js";

/** The keys that say how a model computes. @throws UsageError for what llama.cpp has no key for */
export function metadataOfConfig(config: ModelConfig): Map<string, TypedValue> {
  const gguf = families[config.modelType]?.gguf;
  const fail = (problem: string) => new UsageError(`this model cannot be written as GGUF: ${problem}`);
  if (gguf === undefined) throw fail(`model type ${config.modelType}; export it as safetensors`);
  const problem = problemOf(config, gguf) ?? gguf.problem?.(config);
  if (problem !== undefined) throw fail(problem);
  const { architecture } = gguf;
  const [block] = config.spec.blocks;
  const { kind } = findStep(block, "norm")!.norm;
  const rotation = findStep(block, "rotate");
  const window = config.slidingWindows.find((size) => size !== undefined);
  const keys: [string, TypedValue][] = [
    ["block_count", { u32: config.layers }],
    ["context_length", { u32: reachOf(config, gguf) }],
    ["embedding_length", { u32: config.hiddenSize }],
    ["feed_forward_length", { u32: config.intermediateSize }],
    ["attention.head_count", { u32: config.queryHeads }],
    ["attention.head_count_kv", { u32: config.kvHeads }],
    ["attention.key_length", { u32: config.headDim }],
    ["attention.value_length", { u32: config.headDim }],
    [`attention.layer_norm_${kind === "rms" ? "rms_" : ""}epsilon`, { f32: config.rmsNormEpsilon }],
    ...(rotation === undefined
      ? []
      : ([
          ["rope.dimension_count", { u32: rotation.width }],
          ["rope.freq_base", { f32: config.rope.theta }],
        ] as [string, TypedValue][])),
    ["vocab_size", { u32: config.vocabSize }],
  ];
  keys.push(...scalingKeys(config.rope));
  if (config.experts !== undefined) {
    keys.push(["expert_count", { u32: config.experts.count }], ["expert_used_count", { u32: config.experts.perToken }]);
  }
  for (const [key, value] of Object.entries(gguf.counts?.(config) ?? {})) {
    if (value !== undefined) keys.push([key, { u32: value }]);
  }
  for (const [key, value] of Object.entries(gguf.keys?.(config) ?? {})) {
    if (value !== undefined) keys.push([key, typeof value === "boolean" ? { bool: value } : { f32: value }]);
  }
  if (gguf.encoder) keys.push(["attention.causal", { bool: false }]);
  if (window !== undefined) keys.push(["attention.sliding_window", { u32: window }]);
  return new Map([
    ["general.architecture", { string: architecture }],
    ...keys.map(([key, value]): [string, TypedValue] => [`${architecture}.${key}`, value]),
  ]);
}

/** Positions that llama.cpp computes as the model does. */
function reachOf({ maxPositions, slidingWindows }: ModelConfig, { ownWindows }: GgufFamily): number {
  const windows = slidingWindows.filter((window) => window !== undefined);
  return ownWindows ? maxPositions : Math.min(maxPositions, ...windows);
}

/** The keys of a scaled rotary embedding; the others are in tensors. */
function scalingKeys(rope: RopeSpec): [string, TypedValue][] {
  const at = (key: string) => `rope.scaling.${key}`;
  switch (rope.type) {
    case "linear":
      return [
        [at("type"), { string: "linear" }],
        [at("factor"), { f32: rope.factor }],
      ];
    case "yarn":
      return [
        [at("type"), { string: "yarn" }],
        [at("factor"), { f32: rope.factor }],
        [at("original_context_length"), { u32: rope.originalMaxPositions }],
      ];
    case "longrope":
      return [
        [at("type"), { string: "longrope" }],
        [at("original_context_length"), { u32: rope.originalMaxPositions }],
        [at("attn_factor"), { f32: rope.attentionFactor }],
      ];
    default:
      return [];
  }
}

/** Why llama.cpp, which has one set of numbers for YaRN and for a family, would turn by other angles. */
function yarnProblem(
  { betaFast, betaSlow, truncate, attentionFactor, factor }: RopeSpec & { type: "yarn" },
  { ropeScaling, latent }: GgufFamily,
) {
  const usual = latent ? 1 : yarnTemperature(factor);
  const isUsual =
    betaFast === 32 &&
    betaSlow === 1 &&
    truncate === (ropeScaling?.truncate ?? true) &&
    Math.abs(attentionFactor - usual) < 1e-4;
  return isUsual ? undefined : "its YaRN scaling has other betas or another attention factor than the usual ones";
}

function problemOf(config: ModelConfig, gguf: GgufFamily): string | undefined {
  const { activation, blocks, slidingWindows } = config;
  const { activation: computed = "silu" } = gguf;
  if (activation !== computed) return `llama.cpp computes it with ${computed}, the model uses ${activation}`;
  if (config.rope.type === "yarn") {
    const other = yarnProblem(config.rope, gguf);
    if (other !== undefined) return other;
  }
  if (!["default", "linear", "llama3", "yarn", "longrope"].includes(config.rope.type)) {
    return `its rotary embedding is scaled by ${config.rope.type}; export it as safetensors`;
  }
  if (!gguf.ownWindows && new Set(slidingWindows).size > 1) return "only some layers have a sliding window";
  if (config.rope.type === "longrope" && reachOf(config, gguf) < config.maxPositions)
    return "llama.cpp passes over its window";
  // Dense layers and mixtures of one model may differ: there is a key for each.
  const isMixture = config.spec.blocks.map((block) => findStep(block, "mixture") !== undefined);
  const differs = blocks.some(({ queryHeads, kvHeads, intermediateSize }, layer) => {
    const first = blocks[isMixture.indexOf(isMixture[layer])];
    return (
      queryHeads !== config.queryHeads || kvHeads !== config.kvHeads || intermediateSize !== first.intermediateSize
    );
  });
  if (differs) return "its blocks differ in size; prune to a uniform width";
  return undefined;
}

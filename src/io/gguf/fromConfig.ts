import { families, findStep, type GgufFamily, type ModelConfig } from "../../arch/index.js";
import { UsageError } from "../../core/index.js";
import type { TypedValue } from "./headerBytes.js";

/** The keys that say how a model computes. @throws UsageError for what llama.cpp has no key for */
export function metadataOfConfig(config: ModelConfig): Map<string, TypedValue> {
  const gguf = families[config.modelType]?.gguf;
  const fail = (problem: string) => new UsageError(`this model cannot be written as GGUF: ${problem}`);
  if (config.experts !== undefined) throw fail("its MLPs are mixtures of experts; export it as safetensors");
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
    ["context_length", { u32: config.maxPositions }],
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
  if (config.rope.type === "linear") {
    keys.push(["rope.scaling.type", { string: "linear" }], ["rope.scaling.factor", { f32: config.rope.factor }]);
  }
  for (const [key, value] of Object.entries(gguf.keys?.(config) ?? {})) {
    if (value !== undefined) keys.push([key, typeof value === "boolean" ? { bool: value } : { f32: value }]);
  }
  if (window !== undefined) keys.push(["attention.sliding_window", { u32: window }]);
  return new Map([
    ["general.architecture", { string: architecture }],
    ...keys.map(([key, value]): [string, TypedValue] => [`${architecture}.${key}`, value]),
  ]);
}

function problemOf(
  { activation, blocks, slidingWindows, ...config }: ModelConfig,
  { activation: computed = "silu", problem }: GgufFamily,
): string | undefined {
  if (activation !== computed) return `llama.cpp computes it with ${computed}, the model uses ${activation}`;
  if (!["default", "linear", "llama3"].includes(config.rope.type)) {
    return `its rotary embedding is scaled by ${config.rope.type}; export it as safetensors`;
  }
  if (problem === undefined && new Set(slidingWindows).size > 1) return "only some layers have a sliding window";
  const differs = blocks.some(
    ({ queryHeads, kvHeads, intermediateSize }) =>
      queryHeads !== config.queryHeads || kvHeads !== config.kvHeads || intermediateSize !== config.intermediateSize,
  );
  if (differs) return "its blocks differ in size; prune to a uniform width";
  return undefined;
}

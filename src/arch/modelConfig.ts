import { findStep, isTied, linearsOf } from "./derive.js";
import type { ModelConfig } from "./modelSizes.js";
import { readModelSpec } from "./readSpec.js";
import type { RopeSpec } from "./ropes/index.js";
import type { BlockShape, BlockSpec, ModelSpec } from "./spec.js";

/** As `readModelSpec`, with the single numbers. @throws FormatError naming the field */
export function parseModelConfig(
  raw: unknown,
  file: string,
  generation?: unknown,
  shapes?: readonly BlockShape[],
): ModelConfig {
  const config = modelConfigOf(readModelSpec(raw, file, generation));
  if (shapes === undefined) return config;
  const spec = readModelSpec(raw, file, generation, shapes);
  return { ...config, spec, blocks: shapes };
}

const noRope: RopeSpec = { type: "default", theta: 10_000 };

/** The config of a described model: the names and sizes that loading, costs and exports ask for, read off its steps. */
export function modelConfigOf(spec: ModelSpec): ModelConfig {
  const [block] = spec.blocks;
  const shapes = spec.blocks.map(shapeOf);
  const attend = findStep(block, "attend")!;
  const mixture = spec.blocks.map((one) => findStep(one, "mixture")).find((step) => step !== undefined);
  const biased = (role: string) => linearsOf(block).some((map) => map.role === role && map.bias !== undefined);
  const router = mixture?.router;
  return {
    spec,
    modelType: spec.modelType,
    vocabSize: spec.vocabSize,
    hiddenSize: spec.hiddenSize,
    ...shapes[0],
    layers: spec.blocks.length,
    headDim: attend.kv.k,
    maxPositions: spec.maxPositions,
    rmsNormEpsilon: findStep(block, "norm")!.norm.epsilon,
    rope: spec.blocks.flatMap((one) => findStep(one, "rotate")?.rope ?? [])[0] ?? noRope,
    activation: findStep(block, "activate")!.f,
    tiedEmbeddings: isTied(spec),
    attentionBias: biased("q_proj"),
    mlpBias: biased("up_proj"),
    qkNorm: block.steps.some((step) => step.do === "norm" && step.of === attend.q),
    blocks: shapes,
    ...(mixture &&
      router && {
        experts: { count: mixture.experts.length, perToken: router.perToken, balance: router.balance ?? 0 },
      }),
    slidingWindows: spec.blocks.map((one) => {
      const sight = findStep(one, "attend")?.sight;
      return sight?.kind === "window" ? sight.window : undefined;
    }),
    bosTokenId: spec.bosTokenId,
    eosTokenIds: spec.eosTokenIds,
  };
}

function shapeOf(block: BlockSpec): BlockShape {
  const attend = findStep(block, "attend")!;
  const [gate, second] = block.gates ?? [];
  return {
    queryHeads: attend.heads,
    kvHeads: attend.kv.heads,
    intermediateSize: linearsOf(block).find(({ role }) => role === "up_proj")!.rows,
    ...(attend.pruning && { contextRank: attend.pruning.query.rows }),
    ...(gate && { gates: { units: second ? "sublayers" : gate.part, kind: gate.kind } }),
  };
}

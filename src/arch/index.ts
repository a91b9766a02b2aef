export {
  activationOf,
  activeShares,
  buffersOf,
  costsOf,
  expandedMaps,
  findStep,
  functionOf,
  isEncoder,
  isTied,
  type KeptKv,
  keptBy,
  kvBytesOf,
  type LatentSteps,
  latentAt,
  latentSteps,
  linearsOf,
  mostExpertsOf,
  type NamedShape,
  readersOf,
  sitesOf,
  stepsOf,
  tensorsOf,
  tensorsOfBlock,
  unitsOf,
} from "./derive.js";
export { families } from "./families/index.js";
export type { Family } from "./family.js";
export type { GgufFamily } from "./gguf.js";
export { type BlockInput, type ChannelMaker, inputsOf, type Place, placesOf } from "./inputs.js";
export { modelConfigOf, parseModelConfig } from "./modelConfig.js";
export type { ExpertsConfig, ModelConfig } from "./modelSizes.js";
export { readModelSpec } from "./readSpec.js";
export {
  type RopeSpec,
  type RopeTables,
  ropeAttentionFactor,
  ropeFrequencies,
  ropeReach,
  ropeTables,
} from "./ropes/index.js";
export type * from "./spec.js";
export { surplusLayers } from "./surplusLayers.js";
export { type UnusedField, unusedFields } from "./unusedFields.js";

export {
  activationOf,
  buffersOf,
  costsOf,
  distinctBlocks,
  findStep,
  isEncoder,
  isTied,
  kvBytesOf,
  linearsOf,
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
export type { GgufFamily, JoinedTensor } from "./gguf.js";
export { parseModelConfig } from "./modelConfig.js";
export type { ExpertsConfig, ModelConfig } from "./modelSizes.js";
export { readModelSpec } from "./readSpec.js";
export { type RopeSpec, type RopeTables, ropeTables } from "./ropes/index.js";
export type * from "./spec.js";
export { surplusLayers } from "./surplusLayers.js";

/** For the folders to the right: the parts that families are built of, for a model of one's own. Not part of the package's exports. */
export { withContextPruning } from "./contextPruning.js";
export {
  activeShares,
  type ChosenUnits,
  choiceAt,
  functionOf,
  type KeptKv,
  keptBy,
  type LatentSteps,
  latentAt,
  latentSteps,
  mostExpertsOf,
  remembersTokens,
  smallMapsOf,
  undroppedMaps,
  widthOf,
} from "./derive.js";
export { type BlockInput, type ChannelMaker, inputsOf, type Place, placesOf } from "./inputs.js";
export { endOfAttention, gatedParts, gatedWeights, gateEpsilon, withLayerGates } from "./layerGates.js";
export { modelConfigOf } from "./modelConfig.js";
export { layerNorm, linearMap, type Part, plain, postNorm, stored } from "./parts.js";
export { ropeAttentionFactor, ropeFrequencies, ropeReach } from "./ropes/index.js";
export { yarnTemperature } from "./ropes/yarn.js";
export { type UnusedField, unusedFields } from "./unusedFields.js";

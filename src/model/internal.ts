/** For the folders to the right: how models are stored. Not part of the package's exports. */
export { addedOutput, sharedInput } from "./adapters.js";
export { mostPassRows, rowBytes } from "./buffers.js";
export { cacheBytes } from "./cacheSpec.js";
export { routingOf } from "./checkRouting.js";
export { nonFiniteError } from "./findNonFinite.js";
export { directRef, factorNames, storedMap, storedMatrices } from "./forms.js";
export { checkGenerates } from "./generates.js";
export { isCoded, keepsCodes } from "./keptCodes.js";
export { loadBlocks } from "./load.js";
export { describeTrainable, loadDescribed } from "./loadModel.js";
export { describeBundles, type UnitKind } from "./offload/bundles.js";
export { type HotUnits, hotUnits } from "./offload/hot.js";
export { type OffloadStream, offloadedMlp, placeOffload } from "./offload/placement.js";
export { chooseFormat } from "./structure.js";
export { inputChoice, rolesBehindZeros } from "./thresholds.js";

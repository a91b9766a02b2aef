/** For the folders to the right: what early exit looks at, and where. Not part of the package's exports. */
export { exitFeatures } from "./exits/features.js";
export { probedLayers } from "./exits/index.js";
export { ExitStates } from "./exits/states.js";

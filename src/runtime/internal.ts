/** For the folders to the right: what early exit looks at, and where, and how proposals are decided. Not part of the package's exports. */
export { mostOfLaw } from "./cloud/cutSampler.js";
export { withBudget } from "./cloud/route.js";
export { vocabularyOf } from "./cloud/vocabulary.js";
export { exitFeatures } from "./exits/features.js";
export { probedLayers } from "./exits/index.js";
export { ExitStates } from "./exits/states.js";
export { mostCacheBytes } from "./kv/cacheShape.js";
export { inPages } from "./kv/memory.js";
export { pagesFor } from "./kv/pageTable.js";
export { keepsItsOwnCache } from "./kv/prunedModels.js";
export { oneOf, type ParameterRules, type ParameterValues, parseChoice, share } from "./parameters.js";
export { decide } from "./speculate/decide.js";
export { checkTakesBack, longestDraft } from "./speculate/draftLength.js";

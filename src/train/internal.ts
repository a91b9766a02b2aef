/** For the folders to the right: pages and plans of experiments. Not part of the package's exports. */
export { recordSchema } from "./data/records.js";
export { htmlPage, markdownPage } from "./experiments/pages.js";
export { planOf } from "./experiments/runExperiment.js";
export { extendedParameters } from "./models/parameters.js";
export { type Writers, writeTexts } from "./rollouts.js";
export { randomFor } from "./seeds.js";
export { isStateTree } from "./state.js";

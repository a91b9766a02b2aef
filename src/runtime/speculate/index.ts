export type { Draft, Drafter, Proposal } from "./draft.js";
export { layersDraft } from "./layersDraft.js";
export { lookupDraft } from "./lookupDraft.js";
export { modelDraft } from "./modelDraft.js";
export type { Speculation } from "./source.js";

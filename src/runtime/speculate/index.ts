export type { Draft, Drafter, Proposal, Speculation } from "./draft.js";
export { layersDraft } from "./layersDraft.js";
export { lookupDraft } from "./lookupDraft.js";
export { modelDraft } from "./modelDraft.js";
export { SpeculativeSource } from "./source.js";

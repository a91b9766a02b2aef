export { type CutExperts, cutExperts } from "./cutExperts.js";
export { type MeasureExpertsOptions, measureExperts } from "./measureExperts.js";
export type { MergedMember, Merging } from "./mergedExperts.js";

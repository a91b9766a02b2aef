/** Batch arrays that steer context pruning: σ_α at equal steps, f32 [entries]; entries of a unit, and the weight of what is left, scalars. */
export const sigmoidName = "contextSigmoid";
export const sigmoidPerUnitName = "contextSigmoidPerUnit";
export const contextWeightName = "contextWeight";

/** Name under which the mean share of earlier positions that is left is measured: a scalar. */
export const contextLeftName = "contextLeft";

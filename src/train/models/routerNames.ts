/** Batch arrays that steer routers from outside: f32 [experts] of a mixture, counted from the first block on, and a scalar. */
export const biasName = (mixture: number): string => `routerBias.${mixture}`;
export const sparsityWeightName = "routerSparsityWeight";

/** Name under which the tokens per expert of a mixture are measured: f32 [experts]. */
export const loadName = (mixture: number): string => `load.${mixture}`;

/** Batch arrays that steer routers from outside: f32 [experts] of a layer, and a scalar. */
export const biasName = (layer: number): string => `routerBias.${layer}`;
export const sparsityWeightName = "routerSparsityWeight";

/** Name under which the tokens per expert of a layer are measured: f32 [experts]. */
export const loadName = (layer: number): string => `load.${layer}`;

/** Batch arrays that steer gates of layers, scalars each: the weight of what they add to the loss, and either the share that is to be met… */
export const gateWeightName = "gateWeight";
export const gateTargetName = "gateTarget";
/** …or the share of each text that is let through, whatever it takes. */
export const gateCapacityName = "gateCapacity";

/** Name under which the share of what gates stand before that tokens went through is measured: a scalar. */
export const gateShareName = "layerShare";

/** Something of a model has no kernel for training: the engine takes the model over. Never leaves this folder. */
export class NoKernel extends Error {}

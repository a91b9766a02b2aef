export type { FactorSize, TableShape, TensorMethod } from "./contract.js";
export type { FittedFactors } from "./fit.js";
export { tensorMethods } from "./methods.js";

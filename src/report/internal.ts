/** For the folders to the right: the kit that reports and experiments draw with. Not part of the package's exports. */
export { compressedLayersSchema, resultRowSchema } from "./data.js";
export * from "./figures/index.js";

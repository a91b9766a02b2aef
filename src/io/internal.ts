/** For the folders to the right: where the numbers of a description lie in a checkpoint. Not part of the package's exports. */
export * from "./references.js";
export { takeStorage } from "./takeStorage.js";

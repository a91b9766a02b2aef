/** For the command line: what it asks for before a job is chosen. Not part of the package's exports. */
export { rankKinds } from "./rankKinds.js";
export { packageVersion } from "./version.js";

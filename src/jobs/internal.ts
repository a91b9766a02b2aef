/** For the command line, which asks for the version before anything else is loaded. Not part of the package's exports. */
export { packageVersion } from "./version.js";

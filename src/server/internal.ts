/** For the folders to the right. Not part of the package's exports. */
export { namesOf } from "./models/names.js";

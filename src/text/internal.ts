/** For the folders to the right: how a window of a text begins. Not part of the package's exports. */
export { beginToken, beginWindows } from "./tokenizedText.js";

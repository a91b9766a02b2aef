/** For the folders to the right: text as it enters the first block. Not part of the package's exports. */
export { embedWindows } from "./compress/embedWindows.js";

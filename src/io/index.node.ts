/** The parts of `io` that need Node.js; in browsers nothing imports this file. */
export { directoryFiles, type LocalModelFiles, openFile } from "./file.node.js";

/** The parts of `train` that need Node.js. */

export { readTrainingText } from "./data/textFile.node.js";

/** For the folders to the right: how models are stored. Not part of the package's exports. */
export { factorNames, storedMap, storedMatrices } from "./forms.js";
export { isCoded, keepsCodes } from "./keptCodes.js";
export { describeTrainable } from "./loadModel.js";

export { ExpertLoader } from "./expertLoader.js";
export { leftInFile } from "./leftInFile.js";
export { OffloadLoader } from "./loader.js";
export { offloadedLinear } from "./operations.js";

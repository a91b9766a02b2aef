export { ExpertLoader } from "./expertLoader.js";
export { OffloadLoader } from "./loader.js";

export * from "./activation/index.js";

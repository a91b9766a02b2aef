export type { Cloud } from "./cloud.js";
export { type CloudOptions, connectCloud } from "./connect.js";

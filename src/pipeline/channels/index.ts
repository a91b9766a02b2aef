export { cutChannels } from "./cutChannels.js";
export { type NarrowModel, narrowModel, streamAxes } from "./narrow.js";

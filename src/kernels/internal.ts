/** For the folders to the right: a GPU for kernels of their own. Not part of the package's exports. */
export {
  type Compute,
  type GpuMemory,
  type Kernel,
  kernel,
  openCompute,
  type Recorder,
  read,
  readWrite,
} from "./compute.js";
export { isWholeHeads, wholeHeads } from "./handles.js";
export { keptInputs } from "./inputChoice.js";
export { countOf, keptValue, slotsOf } from "./kv.js";
export { kiviCoded } from "./kvCodes.js";
export { setSlots } from "./sight.js";
export { openDevice } from "./table.js";
export { activationFunction } from "./webgpu/wgsl/elementwise.js";

/** For the folders to the right: a GPU or a CPU for kernels of their own. Not part of the package's exports. */
export {
  type Compute,
  type ComputeRecorder,
  type CpuOptions,
  type DeviceMemory,
  type Kernel,
  kernel,
  type ReadBack,
  read,
  readWrite,
} from "./compute.js";
export { isWholeHeads, wholeHeads } from "./handles.js";
export { keptInputs } from "./inputChoice.js";
export { countOf, keptValue, kvCacheBytes, slotsOf } from "./kv.js";
export { kiviCoded } from "./kvCodes.js";
export { openCompute } from "./openCompute.js";
export { setSlots } from "./sight.js";
export { openDevice } from "./table.js";
export { activationFunction } from "./webgpu/wgsl/elementwise.js";

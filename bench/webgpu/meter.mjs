// What WebGPU is asked for and how long the GPU works on it: counted, and timed, at the interface itself.

import { globals } from "webgpu";

const { GPUDevice, GPUCommandEncoder, GPUComputePassEncoder, GPUQueue } = globals;

/** GPUBufferUsage and GPUMapMode, whose names are globals that Node does not have. */
const usage = { mapRead: 1, copySrc: 4, copyDst: 8, queryResolve: 512 };
const mapRead = 1;

/** Two timestamps a pass; WebGPU allows so many in one set. */
const mostPasses = 2048;

const zero = () => ({ dispatches: 0, passes: 0, submits: 0 });
let counts = zero();
let device;
/** While passes are timed. */
let querySet;
let timedPasses = 0;

/** Calls `before` in front of a method of WebGPU; it may change the arguments. */
function intercept({ prototype }, method, before) {
  const original = prototype[method];
  prototype[method] = function (...given) {
    return original.apply(this, before(this, given) ?? given);
  };
}

intercept(GPUDevice, "createCommandEncoder", (own) => {
  device = own;
});
intercept(GPUQueue, "submit", () => {
  counts.submits++;
});
intercept(GPUComputePassEncoder, "dispatchWorkgroups", () => {
  counts.dispatches++;
});
intercept(GPUCommandEncoder, "beginComputePass", () => {
  counts.passes++;
  if (querySet === undefined) return undefined;
  if (timedPasses === mostPasses) throw new Error(`more than ${mostPasses} passes to time: decode fewer tokens`);
  const first = 2 * timedPasses++;
  return [{ timestampWrites: { querySet, beginningOfPassWriteIndex: first, endOfPassWriteIndex: first + 1 } }];
});

/** Calls of WebGPU, and milliseconds of the processor (of all threads of this process), that `work` takes. */
export async function counted(work) {
  counts = zero();
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return { cpuMs: (user + system) / 1000, ...counts };
}

/**
 * Milliseconds in which compute passes of `work` run on the GPU, those that overlap counted once; undefined where it keeps
 * no timestamps. Something must have run before.
 */
export async function gpuMs(work) {
  if (!device.features.has("timestamp-query")) {
    await work();
    return undefined;
  }
  querySet = device.createQuerySet({ type: "timestamp", count: 2 * mostPasses });
  timedPasses = 0;
  const timed = querySet;
  try {
    await work();
  } finally {
    querySet = undefined;
  }
  const times = await resolved(timed, 2 * timedPasses);
  timed.destroy();
  const passes = Array.from({ length: timedPasses }, (_, i) => [times[2 * i], times[2 * i + 1]]);
  let [busy, until] = [0n, 0n];
  for (const [begin, end] of passes.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))) {
    const from = begin > until ? begin : until;
    if (end > from) busy += end - from;
    if (end > until) until = end;
  }
  return Number(busy) / 1e6;
}

/** @returns nanoseconds */
async function resolved(set, count) {
  const size = 8 * count;
  const [onDevice, onHost] = [usage.queryResolve | usage.copySrc, usage.mapRead | usage.copyDst].map((use) =>
    device.createBuffer({ size, usage: use }),
  );
  const encoder = device.createCommandEncoder();
  encoder.resolveQuerySet(set, 0, count, onDevice, 0);
  encoder.copyBufferToBuffer(onDevice, 0, onHost, 0, size);
  device.queue.submit([encoder.finish()]);
  await onHost.mapAsync(mapRead);
  const times = new BigUint64Array(onHost.getMappedRange().slice(0));
  onDevice.destroy();
  onHost.destroy();
  return times;
}

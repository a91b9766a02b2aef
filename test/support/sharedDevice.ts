/**
 * One GPU device for all backends of a process. A software GPU compiles a pipeline in up to a second, and every device compiles
 * its own; Dawn gives a device the pipeline that it has already, for as long as somebody refers to it.
 */

interface Shared {
  gpu: GPUDevice;
  /** Held, because Dawn frees a device when nobody refers to what it came from. */
  origin: unknown[];
  /** Held, so that Dawn has them still when the next backend asks. */
  pipelines: Set<GPUComputePipeline>;
}

type RequestAdapter = (this: GPU, options?: GPURequestAdapterOptions) => Promise<GPUAdapter | null>;
type RequestDevice = (this: GPUAdapter, descriptor?: GPUDeviceDescriptor) => Promise<GPUDevice>;

/** Adapters whose devices are their own, and what a process keeps, whatever copies of this module it has. */
interface Sharing {
  request: RequestDevice;
  /** By what was asked for. */
  devices: Map<string, Promise<Shared>>;
  alone: boolean;
}

const key = Symbol.for("rarefy.sharedDevice");
const kept = globalThis as { [key]?: Sharing };

/** From now on `requestDevice` of Dawn gives stand-ins for one device. Without the package `webgpu` it does nothing. */
export async function shareDevice(): Promise<void> {
  if (kept[key] !== undefined) return;
  const dawn = await import("webgpu").catch(() => undefined);
  if (dawn === undefined || kept[key] !== undefined) return;
  const { GPU, GPUAdapter } = dawn.globals as {
    GPU: { prototype: { requestAdapter: RequestAdapter } };
    GPUAdapter: { prototype: { requestDevice: RequestDevice } };
  };
  const sharing: Sharing = { request: GPUAdapter.prototype.requestDevice, devices: new Map(), alone: false };
  kept[key] = sharing;
  const { requestAdapter } = GPU.prototype;
  const origins = new WeakMap<GPUAdapter, GPU>();
  GPU.prototype.requestAdapter = async function (options) {
    const adapter = await requestAdapter.call(this, options);
    if (adapter !== null) origins.set(adapter, this);
    return adapter;
  };
  GPUAdapter.prototype.requestDevice = async function (descriptor) {
    if (sharing.alone) return sharing.request.call(this, descriptor);
    const asked = JSON.stringify([this.info.vendor, this.info.device, descriptor]);
    let shared = sharing.devices.get(asked);
    if (shared === undefined) {
      const origin = [this, origins.get(this)];
      shared = sharing.request.call(this, descriptor).then((gpu) => ({ gpu, origin, pipelines: new Set() }));
      sharing.devices.set(asked, shared);
    }
    return standIn(await shared);
  };
}

/** What `open` opens has a device to itself: for tests of what becomes of one. */
export async function onOwnDevice<T>(open: () => Promise<T>): Promise<T> {
  const sharing = kept[key];
  if (sharing === undefined) return open();
  sharing.alone = true;
  try {
    return await open();
  } finally {
    sharing.alone = false;
  }
}

/** A device that lasts until it is destroyed, and with it what was made of it, while the one behind it lives on. */
function standIn({ gpu, pipelines }: Shared): GPUDevice {
  const made: { destroy(): void }[] = [];
  const listeners: Parameters<GPUDevice["removeEventListener"]>[] = [];
  let lose: (info: GPUDeviceLostInfo) => void = () => {};
  const lost = new Promise<GPUDeviceLostInfo>((resolve) => {
    lose = resolve;
  });
  gpu.lost.then(lose);
  const note = <T extends { destroy(): void }>(one: T): T => {
    made.push(one);
    return one;
  };
  const own: Partial<Record<keyof GPUDevice, unknown>> = {
    lost,
    createBuffer: (descriptor: GPUBufferDescriptor) => note(gpu.createBuffer(descriptor)),
    createQuerySet: (descriptor: GPUQuerySetDescriptor) => note(gpu.createQuerySet(descriptor)),
    createComputePipeline(descriptor: GPUComputePipelineDescriptor) {
      const pipeline = gpu.createComputePipeline(descriptor);
      pipelines.add(pipeline);
      return pipeline;
    },
    addEventListener(...listener: Parameters<GPUDevice["addEventListener"]>) {
      listeners.push(listener as Parameters<GPUDevice["removeEventListener"]>);
      gpu.addEventListener(...listener);
    },
    destroy() {
      for (const one of made.splice(0)) one.destroy();
      for (const listener of listeners.splice(0)) gpu.removeEventListener(...listener);
      lose({ reason: "destroyed", message: "it was destroyed" } as GPUDeviceLostInfo);
    },
  };
  return new Proxy(gpu, {
    get(target, name) {
      if (name in own) return own[name as keyof GPUDevice];
      const value = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
    set(_, name, value) {
      own[name as keyof GPUDevice] = value;
      return true;
    },
  });
}

import type { Compute } from "../../src/kernels/internal.js";

type Device = "webgpu" | "wasm";

/**
 * In the place of `kernels/internal.js`: one of each device for all objectives of a file, since on a software GPU compiling the same
 * kernels for each takes most of the time. Kernels find poison in the memory of their workgroups, which Dawn is told not to clear.
 */
export function withSharedCompute<M extends { openCompute(device?: Device): Promise<Compute> }>(real: M): M {
  const shared = new Map<Device, Promise<Compute>>();
  const open = async (device: Device) => {
    const compute = await real.openCompute(device);
    const { recorder } = compute;
    const run = recorder.run.bind(recorder);
    if (device === "webgpu") recorder.run = (kernel, ...rest) => run(poisoned(kernel), ...rest);
    return compute;
  };
  const openCompute = async (device: Device = "webgpu"): Promise<Compute> => {
    if (!shared.has(device)) shared.set(device, open(device));
    const compute = await shared.get(device)!;
    return new Proxy(compute, {
      get: (target, name) => {
        if (name === Symbol.dispose) return () => {};
        const value = Reflect.get(target, name, target);
        return typeof value === "function" ? value.bind(target) : value;
      },
    });
  };
  return { ...real, openCompute };
}

const poison: Readonly<Record<string, string>> = { f32: "3.0e38", u32: "77777u", "vec4<f32>": "vec4<f32>(3.0e38)" };
const withPoison = new WeakMap<object, object>();

/** The kernel, which first fills what it has of a workgroup's memory. */
function poisoned<K extends { code: string }>(kernel: K): K {
  const found = withPoison.get(kernel);
  if (found !== undefined) return found as K;
  const arrays = [...kernel.code.matchAll(/var<workgroup> (\w+): array<(atomic<u32>|[\w<>]+), (\d+)>;/g)];
  const [, threads] = /@workgroup_size\((\d+)\)/.exec(kernel.code)!;
  const fill = arrays.map(([, name, type, length]) => {
    const at = `${name}[place]`;
    const put = type === "atomic<u32>" ? `atomicStore(&${at}, 77777u);` : `${at} = ${poison[type]};`;
    return `for (var place = t; place < ${length}u; place += ${threads}u) { ${put} }`;
  });
  const code = kernel.code.replace(/fn main\([^{]*\{/, (begin) => `${begin} ${fill.join(" ")} workgroupBarrier();`);
  const result = arrays.length === 0 ? kernel : { ...kernel, code };
  withPoison.set(kernel, result);
  return result;
}

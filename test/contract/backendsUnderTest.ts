import { checked } from "../../src/kernels/checked.js";
import { openBackend } from "../../src/kernels/index.js";
import { createBackend, type WasmBackendOptions } from "../../src/kernels/wasm/index.js";
import { onOwnDevice } from "../support/sharedDevice.js";
import { useSoftwareGpu } from "../support/softwareGpu.js";
import { allFormats, type BackendUnderTest, f32Tolerances, gpuFormats, int8ActivationTolerances } from "./harness.js";

/** What the wasm backend is tested as: every build, way of summing, and number of threads that shares work differently. */
const wasmVariants: readonly WasmBackendOptions[] = [
  { build: "baseline", threads: 1 },
  { build: "baseline", threads: 2 },
  { build: "relaxed", dot: "wide", threads: 3 },
  { build: "relaxed", dot: "byte", threads: 2 },
  // Memories that hold the largest matrix of tiny-6m in f32 (16 MiB), but not all of its weights.
  { build: "baseline", threads: 2, memoryLimit: 24 << 20 },
  // Whatever of the processor's own instructions there is.
  { native: true, threads: 2 },
];

const nameOf = ({ build, dot, threads, memoryLimit, native }: WasmBackendOptions) =>
  [
    native ? "wasm with native kernels" : `wasm ${build}`,
    ...(dot === undefined ? [] : [`${dot} dot`]),
    `${threads} ${threads === 1 ? "thread" : "threads"}`,
    ...(memoryLimit === undefined ? [] : [`memories of ${memoryLimit >> 20} MiB`]),
  ].join(", ");

const reference: BackendUnderTest = {
  name: "reference",
  create: () => openBackend("reference"),
  tolerances: f32Tolerances,
  formats: allFormats,
};

/** Every backend, and every build of one, that the contract suite and the golden tests run on here. */
export const backendsUnderTest: BackendUnderTest[] = [reference];

/** Those that this machine cannot run, with the reason. */
export const backendsNotHere: { name: string; reason: string }[] = [];

/** Opens it once to see whether it can be opened. */
async function offer(subject: BackendUnderTest): Promise<void> {
  try {
    (await subject.create())[Symbol.dispose]();
    backendsUnderTest.push(subject);
  } catch (error) {
    backendsNotHere.push({ name: subject.name, reason: (error as Error).message });
  }
}

/** Without native kernels unless they are asked for. @throws Error where they are and there are none */
async function createWasm(options: WasmBackendOptions) {
  const backend = await createBackend({ native: false, ...options });
  const [none] = /no native kernels.*/.exec(backend.info.description) ?? [];
  if (none === undefined) return backend;
  backend[Symbol.dispose]();
  throw new Error(none);
}

for (const options of wasmVariants) {
  await offer({
    name: nameOf(options),
    create: async () => checked(await createWasm(options)),
    tolerances: int8ActivationTolerances,
    // How memory is divided does not depend on how values are coded.
    formats: options.memoryLimit === undefined ? allFormats : ["f32", "q4", "bitmask-bf16", "2:4-q8"],
    randomShapes: options.threads === 1 ? undefined : 100,
  });
}
await useSoftwareGpu();
await offer({
  name: "webgpu",
  create: () => openBackend("webgpu"),
  createAlone: () => onOwnDevice(() => openBackend("webgpu")),
  tolerances: f32Tolerances,
  formats: gpuFormats,
  fuses: true,
  compiles: true,
  // Every shape may be a kernel to compile.
  randomShapes: 90,
});

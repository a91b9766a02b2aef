import { openBackend } from "../../src/kernels/index.js";
import { createBackend, type WasmBackendOptions } from "../../src/kernels/wasm/index.js";
import { type BackendUnderTest, f32Tolerances, int8ActivationTolerances } from "./harness.js";

/** What the wasm backend is tested as: every build, way of summing, and number of threads that shares work differently. */
const wasmVariants: readonly WasmBackendOptions[] = [
  { build: "baseline", threads: 1 },
  { build: "baseline", threads: 2 },
  { build: "relaxed", dot: "wide", threads: 3 },
  { build: "relaxed", dot: "byte", threads: 2 },
  // Memories so small that the weights of one model span several.
  { build: "baseline", threads: 2, memoryLimit: 2 << 20 },
];

const nameOf = ({ build, dot, threads, memoryLimit }: WasmBackendOptions) =>
  [
    `wasm ${build}`,
    ...(dot === undefined ? [] : [`${dot} dot`]),
    `${threads} ${threads === 1 ? "thread" : "threads"}`,
    ...(memoryLimit === undefined ? [] : [`memories of ${memoryLimit >> 20} MiB`]),
  ].join(", ");

const reference: BackendUnderTest = {
  name: "reference",
  create: () => openBackend("reference"),
  tolerances: f32Tolerances,
};

/** Every backend, and every build of one, that the contract suite and the golden tests run on here. */
export const backendsUnderTest: BackendUnderTest[] = [reference];

/** Those that this machine cannot run, with the reason. */
export const backendsNotHere: { name: string; reason: string }[] = [];

for (const options of wasmVariants) {
  const name = nameOf(options);
  try {
    (await createBackend(options))[Symbol.dispose]();
    backendsUnderTest.push({ name, create: () => createBackend(options), tolerances: int8ActivationTolerances });
  } catch (error) {
    backendsNotHere.push({ name, reason: (error as Error).message });
  }
}

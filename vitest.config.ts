import { defineConfig } from "vitest/config";
import { BaseSequencer, type InlineConfig, type TestSpecification } from "vitest/node";

/**
 * Files that run WGSL on a GPU. They share a process, with its modules, and in it a device (test/support/sharedDevice.ts): a GPU
 * that the CPU plays spends most of the time compiling, and each process would compile the same again.
 */
const onGpu = [
  "test/contract/webgpu.test.ts",
  "test/golden/{golden,encoders,sparseFamilies}.test.ts",
  "test/webgpu/*.test.ts",
  "test/activation/backends.test.ts",
  "test/compress/calibrationRun.test.ts",
  "test/model/expertGates.test.ts",
  "test/runtime/contextPruning.test.ts",
  "test/runtime/layerGates.test.ts",
];

/**
 * The order of what takes long. A file of minutes that begins last would run alone while the other worker waits; and the files
 * on a GPU come one after the other, for the process that has compiled most to take the next.
 */
const first = [
  "test/contract/webgpu",
  "test/platform/contract",
  "test/golden/golden",
  "test/webgpu/",
  "test/golden/",
  "test/activation/backends",
  "test/compress/calibrationRun",
  "test/model/expertGates",
  "test/runtime/contextPruning",
  "test/contract/backends",
  "test/compress/cli",
  "test/train/kills",
  "test/train/contextPruningCli",
  "test/train/device",
  "test/train/cli",
  "test/train/",
  "test/jobs/",
  "test/cli",
];

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification) => {
      const found = first.findIndex((part) => moduleId.includes(part));
      return found < 0 ? first.length : found;
    };
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b));
  }
}

const common: InlineConfig = {
  setupFiles: ["test/seed.ts", "test/support/sameBytes.ts"],
  // Only what hangs reaches it: no test fails because the machine is busy.
  testTimeout: 1_800_000,
  hookTimeout: 1_800_000,
  pool: "forks",
};

export default defineConfig({
  test: {
    globalSetup: ["test/support/packedFolder.ts"],
    maxWorkers: 2,
    teardownTimeout: 1_800_000,
    sequence: { sequencer: LongestFirst },
    projects: [
      { test: { ...common, name: "gpu", include: onGpu, isolate: false } },
      { test: { ...common, name: "others", include: ["src/**/*.test.ts", "test/**/*.test.ts"], exclude: onGpu } },
    ],
  },
});

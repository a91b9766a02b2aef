import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

/** Files that take minutes, longest first: begun last, one of them would run alone while the other worker waits. */
const longest = [
  "test/platform/contract",
  "test/contract/webgpu",
  "test/contract/backends",
  "test/golden/golden",
  "test/webgpu/",
  "test/compress/cli",
  "test/train/",
  "test/cli",
];

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification) => {
      const found = longest.findIndex((part) => moduleId.includes(part));
      return found < 0 ? longest.length : found;
    };
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b));
  }
}

export default defineConfig({
  test: {
    include: ["src/**/*.test.ts", "test/**/*.test.ts"],
    globalSetup: ["test/support/packedFolder.ts"],
    setupFiles: ["test/seed.ts", "test/support/sameBytes.ts"],
    // Only what hangs reaches it: no test fails because the machine is busy.
    testTimeout: 1_800_000,
    hookTimeout: 1_800_000,
    teardownTimeout: 1_800_000,
    pool: "forks",
    maxWorkers: 2,
    sequence: { sequencer: LongestFirst },
  },
});

import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["src/**/*.test.ts", "test/**/*.test.ts"],
    globalSetup: ["test/support/packedFolder.ts"],
    setupFiles: ["test/seed.ts"],
    // Only what hangs reaches it: no test fails because the machine is busy.
    testTimeout: 1_800_000,
    hookTimeout: 1_800_000,
    pool: "forks",
    maxWorkers: 2,
  },
});

/**
 * Runs bundled test files in a bare Node.js, for platforms on which vitest's own tools do not run: see scripts/test-emulated.mjs, which
 * puts this in the place of "vitest".
 */
import { JestAsymmetricMatchers, JestChaiExpect, JestExtend } from "@vitest/expect";
import { startTests, type Test, type VitestRunner } from "@vitest/runner";
import * as chai from "chai";

export * from "@vitest/runner";

for (const plugin of [JestExtend, JestChaiExpect, JestAsymmetricMatchers]) chai.use(plugin);
export const expect = chai.expect;

/** Runs files one after the other, says how each test ended, and sets the exit code. @param name what names of tests must match */
export async function runAlone(paths: readonly string[], name?: RegExp): Promise<void> {
  const ended: Record<string, number> = { pass: 0, fail: 0, skip: 0 };
  const runner: VitestRunner = {
    config: {
      ...{ root: process.cwd(), setupFiles: [], name: undefined, passWithNoTests: false, testNamePattern: name },
      ...{ allowOnly: false, sequence: { seed: 1, hooks: "stack", setupFiles: "list" }, chaiConfig: undefined },
      ...{ maxConcurrency: 1, testTimeout: 0, hookTimeout: 0, retry: 0, includeTaskLocation: false, tags: [] },
      ...{ tagsFilter: undefined, strictTags: false },
    },
    importFile: (path) => import(path),
    onAfterRunTask(test: Test) {
      const state = test.result?.state ?? "skip";
      ended[state] = (ended[state] ?? 0) + 1;
      console.log(`${state} ${test.fullTestName}`);
      for (const error of test.result?.errors ?? []) console.log(`  ${error.stack ?? error.message}`);
    },
  };
  const files = await startTests([...paths], runner);
  for (const file of files) for (const error of file.result?.errors ?? []) console.log(error.stack ?? error.message);
  console.log(`${ended.pass} passed, ${ended.fail} failed, ${ended.skip} skipped`);
  if (ended.pass === 0 || files.some((file) => file.result?.state !== "pass")) process.exitCode = 1;
}

import { expect, it } from "vitest";
import { backends } from "../../src/kernels/index.js";
import { backendSuite } from "./backendSuite.js";
import { backendsNotHere, backendsUnderTest } from "./backendsUnderTest.js";

it("every backend of the table is under test, or there is a reason why not", () => {
  for (const id of Object.keys(backends)) {
    expect(
      [...backendsUnderTest, ...backendsNotHere].some((b) => b.name.split(" ")[0] === id),
      id,
    ).toBe(true);
  }
});

// WebGPU takes as long as all others together, and has a file, so a worker, of its own.
for (const subject of backendsUnderTest) if (subject.name !== "webgpu") backendSuite(subject);
for (const { name, reason } of backendsNotHere) if (name !== "webgpu") it.skip(`backend ${name}: ${reason}`, () => {});

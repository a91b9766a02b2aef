import { expect, it } from "vitest";
import { backends } from "../../src/kernels/index.js";
import { backendSuite } from "./backendSuite.js";
import { backendsUnderTest } from "./backendsUnderTest.js";

it("every backend of the table is under test", () => {
  for (const id of Object.keys(backends)) {
    expect(
      backendsUnderTest.some((b) => b.name.split(" ")[0] === id),
      id,
    ).toBe(true);
  }
});

for (const subject of backendsUnderTest) backendSuite(subject);

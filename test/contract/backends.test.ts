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

for (const subject of backendsUnderTest) backendSuite(subject);
for (const { name, reason } of backendsNotHere) it.skip(`backend ${name}: ${reason}`, () => {});

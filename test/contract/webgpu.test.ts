import { it } from "vitest";
import { backendSuite } from "./backendSuite.js";
import { backendsNotHere, backendsUnderTest } from "./backendsUnderTest.js";

for (const subject of backendsUnderTest) if (subject.name === "webgpu") backendSuite(subject);
for (const { name, reason } of backendsNotHere) if (name === "webgpu") it.skip(`backend ${name}: ${reason}`, () => {});

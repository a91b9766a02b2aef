import { openBackend } from "../../src/kernels/index.js";
import { type BackendUnderTest, f32Tolerances } from "./harness.js";

/** Every backend, and every build of one, that the contract suite and the golden tests run on. */
export const backendsUnderTest: readonly BackendUnderTest[] = [
  { name: "reference", create: () => openBackend("reference"), tolerances: f32Tolerances },
];

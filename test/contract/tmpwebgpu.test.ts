import { createBackend } from "../../src/kernels/webgpu/index.js";
import { backendSuite } from "./backendSuite.js";
import { f32Tolerances } from "./harness.js";

backendSuite({ name: "webgpu", create: createBackend, tolerances: f32Tolerances });

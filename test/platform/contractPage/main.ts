import "../../seed.js";
import { openBackend } from "../../../src/kernels/index.js";
import { backendSuite } from "../../contract/backendSuite.js";
import { f32Tolerances, gpuFormats } from "../../contract/harness.js";
import { type Outcome, runCollected } from "./vitestInPage.js";

declare global {
  var runContract: () => Promise<Outcome[]>;
}

globalThis.runContract = () => {
  backendSuite({
    name: "webgpu",
    create: () => openBackend("webgpu"),
    tolerances: f32Tolerances,
    formats: gpuFormats,
    fuses: true,
  });
  return runCollected();
};

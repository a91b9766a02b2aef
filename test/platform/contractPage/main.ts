import "../../seed.js";
import { openBackend } from "../../../src/kernels/index.js";
import { backendSuite } from "../../contract/backendSuite.js";
import { f32Tolerances } from "../../contract/harness.js";
import { type Outcome, runCollected } from "./vitestInPage.js";

declare global {
  var runContract: () => Promise<Outcome[]>;
}

globalThis.runContract = () => {
  backendSuite({
    name: "webgpu",
    create: () => openBackend("webgpu"),
    tolerances: f32Tolerances,
    // Every way of storing and of coding once; in Node.js, Dawn runs the same kernels with all formats.
    formats: ["f32", "q4", "bitmask-bf16", "2:4-q8"],
    fuses: true,
    fewLayouts: true,
    compiles: true,
    randomShapes: 12,
  });
  return runCollected();
};

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Activation, LinearOptions, Matrix, Vector } from "../../src/kernels/index.js";
import { WebGpuBackend } from "../../src/kernels/webgpu/backend.js";
import { Device } from "../../src/kernels/webgpu/device.js";
import { loadStack, normals, upload } from "../contract/harness.js";
import { useSoftwareGpu } from "../support/softwareGpu.js";

await useSoftwareGpu();
const unavailable = await Device.open().then(
  (device) => void device[Symbol.dispose](),
  (error: Error) => error.message,
);

const cols = 64;
const partRows = [40, 24];
const rows = 64;

// A matrix remembers the dispatches of its last product. Whatever was different then must not be seen now.
describe.skipIf(unavailable !== undefined)("a product of one row by a matrix that was multiplied before", () => {
  let device: Device;
  let backend: WebGpuBackend;
  let xs: Activation[];
  let outs: Activation[];
  let weights: Vector[];
  /** Of one part. */
  let single: Matrix;
  beforeEach(async () => {
    device = await Device.open();
    backend = new WebGpuBackend(device);
    xs = [1, 2].map((seed) => upload(backend, 1, 2 * cols, normals(seed, 2 * cols)));
    outs = [3, 4, 5, 6].map(() => backend.allocate(1, 2 * rows));
    single = (await loadStack(backend, "q8", [rows], cols)).handle;
    weights = [6, 7].map((seed) => backend.loadVector(normals(seed, rows)));
  });
  afterEach(() => backend[Symbol.dispose]());

  const loaded = async () => (await loadStack(backend, "q8", partRows, cols)).handle;
  const left = (activation: Activation) => activation.columns(0, cols);
  const right = (activation: Activation) => activation.columns(cols, cols);

  /** Neighbours differ in the buffer or in the place within it, not in both. */
  const placesIn = ([a, b]: Activation[]) => [left(a), left(b), right(b), right(a)];

  /** What is done with two matrices, which may be one, to `outs` that begin as ones. */
  type Work = (w: Matrix, v: Matrix) => void;
  const product =
    (out: Activation, x: Activation, options: LinearOptions = {}): Work =>
    (w) =>
      backend.linear(out, x, w, options);
  const results = async (work: Work, w: Matrix, v: Matrix) => {
    for (const out of outs) backend.write(out, new Float32Array(2 * rows).fill(1));
    backend.takeCounters();
    work(w, v);
    const values: Float32Array[] = [];
    for (const out of outs) values.push(await backend.read(out));
    return { values, counters: backend.takeCounters() };
  };

  const changes: [string, () => Work[]][] = [
    ["input", () => placesIn(xs).map((x) => product(left(outs[0]), x))],
    ["output", () => placesIn(outs).map((out) => product(out, left(xs[0])))],
    [
      "bias and addition",
      () =>
        [{ bias: weights[0] }, { bias: weights[1] }, {}, { accumulate: true }].map((options) =>
          product(left(outs[0]), left(xs[0]), options),
        ),
    ],
    [
      "thresholds",
      () =>
        [undefined, [0.3, 0.9], [0.9, 0.3], [0, 0.3]].map((thresholds) =>
          product(left(outs[0]), left(xs[0]), { thresholds }),
        ),
    ],
    [
      "thresholds, twice before the GPU is told",
      () => [
        (w, v) => {
          backend.linear(left(outs[0]), left(xs[0]), w, { accumulate: true, thresholds: [0.3, 0.9] });
          backend.linear(left(outs[0]), left(xs[0]), v, { accumulate: true, thresholds: [0.9, 0.3] });
        },
      ],
    ],
    [
      "place of what is counted",
      () => [
        product(left(outs[0]), left(xs[0]), { thresholds: [0.3, 0.9] }),
        (w) => {
          backend.linear(left(outs[1]), left(xs[0]), single, { thresholds: [0.5] });
          backend.linear(left(outs[0]), left(xs[0]), w, { thresholds: [0.3, 0.9] });
        },
      ],
    ],
    [
      "gate",
      () =>
        [
          { up: left(xs[1]), f: "silu" as const },
          { up: right(xs[1]), f: "silu" as const },
          { up: right(xs[0]), f: "silu" as const },
          { up: right(xs[0]), f: "silu" as const, gateThreshold: 0.2 },
          { up: right(xs[0]), f: "relu" as const, gateThreshold: 0.2 },
        ].map((gate) => product(left(outs[0]), left(xs[0]), { gate })),
    ],
    [
      "norm before and after",
      () =>
        [
          { x: left(xs[0]), normed: left(outs[1]), weight: weights[0], epsilon: 1e-5 },
          { x: left(xs[0]), normed: left(outs[1]), weight: weights[1], epsilon: 1e-5 },
          { x: left(xs[0]), normed: left(outs[1]), weight: weights[1], epsilon: 0.5 },
          { x: left(xs[1]), normed: left(outs[1]), weight: weights[1], epsilon: 0.5 },
          { x: left(xs[1]), normed: left(outs[2]), weight: weights[1], epsilon: 0.5 },
          { x: left(xs[1]), normed: right(outs[2]), weight: weights[1], epsilon: 0.5 },
          { x: left(xs[1]), normed: right(outs[2]), weight: weights[1], epsilon: 0.5, by: single },
          // Two buffers take the squares in turns: now each time the other one.
          { x: left(xs[1]), normed: right(outs[2]), weight: weights[1], epsilon: 0.5, before: 2 },
          { x: left(xs[0]), normed: right(outs[2]), weight: weights[1], epsilon: 0.5, before: 2 },
        ].map(({ x, normed, weight, epsilon, before = 1, by }) => (w: Matrix, v: Matrix) => {
          const [stream] = outs.map(left);
          for (let i = 0; i < before; i++) {
            backend.linear(stream, x, single, { accumulate: true });
            backend.rmsNorm(normed, stream, weight, epsilon);
          }
          backend.linear(stream, x, by ?? w, { accumulate: true });
          backend.rmsNorm(normed, stream, weight, epsilon);
          backend.linear(left(outs[3]), normed, v);
        }),
    ],
  ];

  it.each(changes)("gives and counts what a matrix of its own does when what changes is the %s", async (_, works) => {
    const [w, v] = [await loaded(), await loaded()];
    const all = works();
    const expected = [];
    for (const work of all) expected.push(await results(work, await loaded(), await loaded()));
    for (const [i, a] of expected.entries()) {
      for (const b of expected.slice(0, i)) expect(a.values).not.toEqual(b.values);
    }
    for (const second of [v, w]) {
      for (const [i, work] of [...all.entries(), ...[...all.entries()].reverse()]) {
        for (const _time of ["changed", "again"]) {
          expect(await results(work, w, second), `work ${i}`).toEqual(expected[i]);
        }
      }
    }
  });
});

import { expect, test } from "vitest";
import { openBackend } from "../../src/kernels/index.js";
import { denseFormats, normals, rowSource, upload } from "../contract/harness.js";
import { useSoftwareGpu } from "../support/softwareGpu.js";

await useSoftwareGpu();
const unavailable = await openBackend("webgpu").then(
  (backend) => void backend[Symbol.dispose](),
  (error: Error) => error.message,
);
const name = `%s: the GPU itself chooses experts for one row${unavailable === undefined ? "" : ` (${unavailable})`}`;

// The contract suite passes without these kernels too, through the host; here is seen that they are right and used.
test.skipIf(unavailable !== undefined).each(denseFormats)(name, async (format) => {
  using backend = await openBackend("webgpu");
  const source = (seed: number) => [rowSource(`expert ${seed}`, normals(seed, 40 * 64), 40, 64)];
  await backend.loadExperts([source(1), source(2), source(3)], format);
  expect(backend.info.description).not.toContain("not used");
  const options = { experts: 3, perRow: 2, score: "softmax", normalise: true } as const;
  const [one, several] = [upload(backend, 1, 4, normals(4, 4)), upload(backend, 2, 4, normals(5, 8))];
  expect(await backend.route(one, options)).toHaveProperty("onDevice");
  expect(await backend.route(several, options)).not.toHaveProperty("onDevice");
});

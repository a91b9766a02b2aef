import { expect, test } from "vitest";
import { openBackend, type RowSource } from "../../src/kernels/index.js";
import { dtypeBytes } from "../../src/tensor/index.js";

/** The identity, as stored in a file: f32 [size, size]. */
function identity(size: number): RowSource {
  return {
    name: "identity",
    rows: size,
    cols: size,
    dtype: "F32",
    async read(start, count, into) {
      const rows = new Float32Array(count * size);
      for (let r = 0; r < count; r++) rows[r * size + start + r] = 1;
      into.set(new Uint8Array(rows.buffer, 0, count * size * dtypeBytes.F32));
    },
  };
}

test("TEAL drops |x| ≤ t, CATS keeps what equals its threshold", async () => {
  using backend = await openBackend("reference");
  const matrix = await backend.loadMatrix([identity(8)], "f32");
  const [x, ones, out] = [1, 2, 3].map(() => backend.allocate(1, 8));
  const threshold = Math.fround(0.2);

  backend.write(x, Float32Array.of(0.2, -0.5, 0, 0.5, -0.1, 0, 0, 0));
  backend.linear(out, x, matrix, { thresholds: [threshold] });
  expect(await backend.read(out)).toEqual(Float32Array.of(0, -0.5, 0, 0.5, 0, 0, 0, 0));

  backend.write(x, Float32Array.of(0.2, 0.5, 0, -0.5, 0.1, 0, 0, 0));
  backend.write(ones, new Float32Array(8).fill(1));
  backend.gatedActivation(out, x, ones, "relu", { gateThreshold: threshold });
  expect(await backend.read(out)).toEqual(Float32Array.of(0.2, 0.5, 0, 0, 0, 0, 0, 0));
});

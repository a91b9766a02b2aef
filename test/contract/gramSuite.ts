import { expect, it } from "vitest";
import type { Backend } from "../../src/kernels/index.js";
import { expectWithin, normals, upload } from "./harness.js";

/** Optional: backends without it leave the sum to the host. */
export function gramSuite(backend: () => Backend): void {
  it("addGram: xᵀ·x of several batches on and above the diagonal, |Δ| ≤ 1e-5·Σ|x·x|", async () => {
    const b = backend();
    if (b.addGram === undefined) {
      expect(b.info.id).not.toBe("wasm");
      return;
    }
    for (const cols of [4, 20, 100, 260]) {
      const gram = b.allocate(cols, cols);
      b.write(gram, new Float32Array(cols * cols));
      const values = new Float64Array(cols * cols);
      const bounds = new Float64Array(cols * cols);
      for (const rows of [1, 7, 32, 70, 160]) {
        const wide = normals(rows + cols, rows * (cols + 8));
        const xs = upload(b, rows, cols + 8, wide);
        b.addGram(gram, xs.columns(4, cols));
        b.release(xs);
        for (let t = 0; t < rows; t++) {
          const x = wide.subarray(t * (cols + 8) + 4, t * (cols + 8) + 4 + cols);
          for (let i = 0; i < cols; i++) {
            for (let j = i; j < cols; j++) {
              values[i * cols + j] += x[i] * x[j];
              bounds[i * cols + j] += 1e-5 * Math.abs(x[i] * x[j]) + 1e-7;
            }
          }
        }
      }
      const actual = await b.read(gram);
      for (let i = 0; i < cols; i++) actual.fill(0, i * cols, i * cols + i);
      expectWithin(actual, { values, bounds }, `${cols} channels`);
      b.release(gram);
    }
  });
}

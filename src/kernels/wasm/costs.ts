import { type PackedFormatId, sparseFormats, valueTypeOf, type WeightFormatId } from "../../pack/index.js";
import type { ProductCosts, RowSource } from "../backend.js";
import type { WasmBackend } from "./backend.js";

/** Shape of the matrix that is timed, and the bytes of its copies, which no second-level cache holds. */
const [rows, cols] = [2048, 1024];
const workingSetBytes = 48 << 20;
const rounds = 5;
/** Shares of non-zeros that a bit mask is timed at; what lies between is interpolated. */
const densities = [0.25, 0.5, 0.75];

/**
 * Nanoseconds per weight of every format of a value type, timed on a backend of its own that is disposed afterwards. Formats
 * take turns within each round, so that what else the machine does hits all alike.
 * @param create a backend like the one that is asked
 */
export async function measureCosts(create: () => Promise<WasmBackend>, value: WeightFormatId): Promise<ProductCosts> {
  using backend = await create();
  const cases: { format: PackedFormatId; density: number }[] = [{ format: value, density: 1 }];
  for (const format of backend.formats) {
    if (!Object.hasOwn(sparseFormats, format) || valueTypeOf(format) !== value) continue;
    const tried = format.startsWith("2:4") ? [0.5] : densities;
    cases.push(...tried.map((density) => ({ format, density })));
  }
  const x = backend.allocate(1, cols);
  const y = backend.allocate(1, rows);
  backend.write(
    x,
    Float32Array.from({ length: cols }, (_, i) => Math.sin(i)),
  );
  const times: number[][] = cases.map(() => []);
  const sets = [];
  for (const { format, density } of cases)
    sets.push(await backend.loadCopies(testMatrix(density), format, workingSetBytes));
  for (let round = 0; round < rounds; round++) {
    for (const [i, copies] of sets.entries()) {
      const start = performance.now();
      for (const matrix of copies) backend.linear(y, x, matrix);
      await backend.flush();
      times[i].push((performance.now() - start) / copies.length);
    }
  }
  const perWeight = times.map((list) => list.sort((a, b) => a - b)[rounds >> 1] / (rows * cols));
  return { predictMs: (format, r, c, density) => interpolate(format, density) * r * c };

  /** Milliseconds per weight, on the straight line through the two nearest densities. */
  function interpolate(format: PackedFormatId, density: number): number {
    const known = [...cases.keys()].filter((i) => cases[i].format === format);
    if (known.length < 2) return perWeight[known[0]];
    const upper = Math.max(
      1,
      known.findIndex((i) => cases[i].density >= density),
    );
    const [a, b] = [known[upper - 1], known[upper]];
    const share = (density - cases[a].density) / (cases[b].density - cases[a].density);
    return Math.max(perWeight[a] + share * (perWeight[b] - perWeight[a]), perWeight[a] / 4);
  }
}

/** bf16 numbers of mixed signs around 0.01; of every four inputs two or fewer at a density of 0.5. */
function testMatrix(density: number): RowSource {
  return {
    name: "timed",
    rows,
    cols,
    dtype: "BF16",
    async read(start, count, into) {
      const words = new Uint16Array(into.buffer, into.byteOffset, into.byteLength / 2);
      for (let r = 0; r < count; r++) {
        for (let c = 0; c < cols; c++) {
          const at = (start + r) * cols + c;
          const mixed = Math.imul(at, 0x9e3779b1) >>> 16;
          const pair = Math.imul(at >> 2, 0x9e3779b1) >>> 30;
          const present = density === 0.5 ? ((pair ^ c) & 3) < 2 : (mixed & 255) < 256 * density;
          words[r * cols + c] = present ? 0x3c00 | (mixed & 0x80ff) : 0;
        }
      }
    },
  };
}

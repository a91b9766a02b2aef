import { isSparse, type PackedFormatId, sparseFormats, valueTypeOf, type WeightFormatId } from "../../pack/index.js";
import type { Backend, Matrix, ProductCosts, RowSource } from "../backend.js";

/** Shape of the matrix that is timed, and the bytes of its copies, which no second-level cache holds. */
const [rows, cols] = [2048, 512];
const workingSetBytes = 12 << 20;
/** Tokens of the prompt that is timed. */
const promptTokens = 64;
/** Rounds at most and at least, and how long there are more than the least. */
const [maxRounds, minRounds, budgetMs] = [9, 3, 400];

/** A backend that holds a matrix so many times that it comes from memory. */
interface TimedBackend extends Backend {
  loadCopies(source: RowSource, format: PackedFormatId, byteLength: number): Promise<Matrix[]>;
}

/**
 * Times every format of a value type on a backend of its own that is disposed afterwards. Formats take turns within each
 * round, so that what else the machine does hits all alike.
 * @param create a backend like the one that is asked
 */
export async function measureCosts(create: () => Promise<TimedBackend>, value: WeightFormatId): Promise<ProductCosts> {
  using backend = await create();
  const cases: { format: PackedFormatId; density: number }[] = [{ format: value, density: 1 }];
  for (const format of backend.formats!) {
    if (!isSparse(format) || valueTypeOf(format) !== value) continue;
    cases.push(...sparseFormats[format].timedAt.map((density) => ({ format, density })));
  }
  const [one, prompt] = [1, promptTokens].map((tokens) => {
    const [x, y] = [backend.allocate(tokens, cols), backend.allocate(tokens, rows)];
    backend.write(
      x,
      Float32Array.from({ length: tokens * cols }, (_, i) => Math.sin(i)),
    );
    return { x, y };
  });
  const timed = async ({ x, y }: typeof one, matrix: Matrix) => {
    const start = performance.now();
    backend.linear(y, x, matrix);
    await backend.flush();
    return performance.now() - start;
  };
  const times = cases.map(() => ({ token: [] as number[], promptToken: [] as number[] }));
  const sets = [];
  for (const { format, density } of cases)
    sets.push(await backend.loadCopies(testMatrix(format, density), format, workingSetBytes));
  const begun = performance.now();
  for (let round = 0; round < maxRounds; round++) {
    if (round >= minRounds && performance.now() - begun > budgetMs) break;
    for (const [i, copies] of sets.entries()) {
      // One by one: the shorter a sample, the likelier it is that nothing else ran meanwhile.
      for (const copy of copies) times[i].token.push(await timed(one, copy));
      for (const copy of copies.slice(0, 3)) times[i].promptToken.push((await timed(prompt, copy)) / promptTokens);
    }
  }
  // The shortest: whatever else ran can only have lengthened the others.
  const perWeight = (kind: "token" | "promptToken") => times.map((of) => Math.min(...of[kind]) / (rows * cols));
  const [token, promptToken] = [perWeight("token"), perWeight("promptToken")];
  return {
    predictMs: (format, r, c, density) => interpolate(token, format, density) * r * c,
    predictPromptMs: (format, r, c, density) => interpolate(promptToken, format, density) * r * c,
  };

  /** Milliseconds per weight, on the straight line through the two nearest densities. */
  function interpolate(perWeight: readonly number[], format: PackedFormatId, density: number): number {
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

/** bf16 numbers of mixed signs around 0.01, with zeros as the format wants them. */
function testMatrix(format: PackedFormatId, density: number): RowSource {
  const pattern = isSparse(format) ? sparseFormats[format].pattern : undefined;
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
          words[r * cols + c] =
            pattern === undefined || pattern.present(start + r, c, density) ? 0x3c00 | (mixed & 0x80ff) : 0;
        }
      }
    },
  };
}

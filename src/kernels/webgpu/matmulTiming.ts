import type { WeightFormatId } from "../../pack/index.js";
import { zeroCounters } from "../counters.js";
import type { Context } from "./context.js";
import { linear } from "./linear.js";
import { type FormatKernels, loadMatrix, type MatmulKernel } from "./matrix.js";
import type { ActivationPool } from "./storage.js";

/** A matrix large enough to keep a GPU busy, small enough to be packed at once. */
const size = 2048;
const repeats = 32;

/**
 * Leaves out the kernels for matrix units that plain ones outrun on as many rows of x: such units are not faster on every
 * GPU, nor with every driver.
 */
export async function withoutSlower(
  context: Context,
  pool: ActivationPool,
  formatId: WeightFormatId,
  common: Omit<FormatKernels, "matmuls">,
  matmuls: readonly MatmulKernel[],
): Promise<MatmulKernel[]> {
  const plain = matmuls.filter(({ tile }) => tile === undefined);
  if (plain.length === matmuls.length) return [...matmuls];
  const zeros = async (_start: number, _count: number, into: Uint8Array) => void into.fill(0);
  const source = { name: "timing", rows: size, cols: size, dtype: "F32", read: zeros } as const;
  const matrix = await loadMatrix(context.device, [source], formatId, { ...common, matmuls }, {});
  const rows = Math.max(...matmuls.map(({ tokens }) => tokens));
  const [x, out] = [pool.take(rows, size), pool.take(rows, size)];
  const counters = zeroCounters();

  async function elapsedMs(kernels: readonly MatmulKernel[], tokens: number): Promise<number> {
    const timed = { ...matrix, kernels: { ...common, matmuls: kernels } };
    const run = async (times: number) => {
      for (let i = 0; i < times; i++)
        linear(context, out.rowRange(0, tokens), x.rowRange(0, tokens), timed, {}, counters);
      await context.recorder.settle();
    };
    await run(2);
    const startMs = performance.now();
    await run(repeats);
    return performance.now() - startMs;
  }

  const kept: MatmulKernel[] = [...plain];
  for (const candidate of matmuls.filter(({ tile }) => tile !== undefined)) {
    const [plainMs, candidateMs] = [
      await elapsedMs(plain, candidate.tokens),
      await elapsedMs([candidate], candidate.tokens),
    ];
    if (candidateMs < plainMs) kept.push(candidate);
  }
  for (const activation of [x, out]) pool.giveBack(activation);
  for (const { memory } of matrix.chunks) context.recorder.freeLater(memory);
  return kept;
}

import { DeviceError, Random } from "../../core/index.js";
import { groupSize, packSparse, type SparseFormatId, sparseFormats } from "../../pack/index.js";
import type { LinearOptions } from "../backend.js";
import { zeroCounters } from "../counters.js";
import type { Context } from "./context.js";
import type { Device } from "./device.js";
import type { FormatKernels } from "./matrix.js";
import type { SparseKernels, SparseMatvec } from "./sparseKernels.js";
import { sparseLinear } from "./sparseLinear.js";
import { loadSparseMatrix } from "./sparseMatrix.js";
import { type ActivationPool, readRows } from "./storage.js";
import { attempt, source, tolerance, wrongProduct } from "./testProduct.js";
import { expand } from "./wgsl/expand.js";
import { sparseTileRows } from "./wgsl/sparseAccess.js";
import { sliceGroups, sparseMatvec } from "./wgsl/sparseMatvec.js";
import { isTwoOfFour, twoOfFourColumns, twoOfFourMatvec } from "./wgsl/twoOfFourMatvec.js";

/** What is tried for a format, best first. */
function candidates({ isSoftware, subgroups32 }: Device, format: SparseFormatId): SparseMatvec[] {
  if (!isTwoOfFour(format)) return [{ kernel: sparseMatvec(format), workgroups: 1024, sliceGroups }];
  const tunings = [
    ...(subgroups32 ? [{ subgroups32, threads: 256, unroll: 4 }] : []),
    isSoftware ? { subgroups32: false, threads: 32, unroll: 1 } : { subgroups32: false, threads: 128, unroll: 4 },
  ];
  return tunings.map((tuning) => ({
    kernel: twoOfFourMatvec(format, tuning),
    workgroups: 256,
    sliceGroups: twoOfFourColumns / groupSize,
  }));
}

/**
 * Computes something known with the kernels of a format before they are used.
 * @param dense the kernels of the dense format that its codes come from
 * @throws DeviceError when the device expands matrices wrongly
 */
export async function checkSparseFormat(
  context: Context,
  pool: ActivationPool,
  formatId: SparseFormatId,
  dense: FormatKernels,
): Promise<{ kernels: SparseKernels; problems: string[] }> {
  const format = sparseFormats[formatId];
  const random = new Random(3);
  const [cols, tokens, thresholds] = [200, 3, [0.4, 0.9]];
  const parts = [sparseTileRows + 36, 40].map((rows, i) => {
    // Two of every four inputs, some of them dropped as well: what every format can hold.
    const stored = Float32Array.from({ length: rows * cols }, (_, at) =>
      at % 4 === Math.floor(at / 4) % 3 || at % 4 === 3 ? random.normal() * Math.round(random.uniform()) : 0,
    );
    const values = format.unpack(packSparse(format, stored, rows, cols), rows, cols);
    return { source: source(`self-check ${i}`, stored, rows, cols), values };
  });
  const kernels: SparseKernels = { expand: expand(formatId) };
  const sources = parts.map((part) => part.source);
  const matrix = await loadSparseMatrix(context.device, sources, formatId, { sparse: kernels, dense }, {});
  const inputs = Float32Array.from({ length: tokens * cols }, () => random.normal());
  const [x, out] = [pool.take(tokens, cols), pool.take(tokens, matrix.rows)];
  context.device.gpu.queue.writeBuffer(x.memory.buffer, 0, inputs);
  const problems: string[] = [];
  const expected = parts.map(({ values }, p) => ({ ...matrix.parts[p], values }));

  const works = async (name: string, rows: number, options: LinearOptions, matvec?: SparseMatvec): Promise<boolean> => {
    const counters = zeroCounters();
    const w = { ...matrix, kernels: { ...kernels, matvec } };
    const result = await attempt(context, name, problems, () => {
      sparseLinear(context, out.rowRange(0, rows), x.rowRange(0, rows), w, options, counters);
      return readRows(context, out.rowRange(0, rows));
    });
    if (result === undefined) return false;
    const problem = wrongProduct(
      { result, inputs, rows, cols, parts: expected, thresholds: options.thresholds },
      tolerance,
    );
    if (problem !== undefined) problems.push(`${name} ${problem}`);
    return problem === undefined;
  };

  try {
    if (!(await works(kernels.expand.name, tokens, { thresholds }))) {
      throw new DeviceError(`this GPU computes wrongly: ${problems.join("; ")}`);
    }
    for (const matvec of candidates(context.device, formatId)) {
      const { name } = matvec.kernel;
      if ((await works(name, 1, {}, matvec)) && (await works(name, 1, { thresholds }, matvec))) {
        return { kernels: { ...kernels, matvec }, problems };
      }
    }
    return { kernels, problems };
  } finally {
    for (const activation of [x, out]) pool.giveBack(activation);
    for (const memory of [matrix.places, ...matrix.chunks.map((chunk) => chunk.memory)])
      context.recorder.freeLater(memory);
  }
}

import { DeviceError } from "../../core/index.js";
import type { WeightFormatId } from "../../pack/index.js";
import type { LinearOptions } from "../backend.js";
import type { Context } from "./context.js";
import { gpuFormat } from "./formats.js";
import { withoutSlower } from "./matmulTiming.js";
import { candidates, type FormatKernels, type MatvecKernel, type MatvecKernels, toleranceOf } from "./matrix.js";
import type { ActivationPool } from "./storage.js";
import { testProduct } from "./testProduct.js";
import type { MatvecInput } from "./wgsl/matvecInputs.js";

// Drivers miscompile shaders now and then. Every kernel therefore computes something known before it is used.

/** What products of one row are made for. Other activation functions are rarer: they are an operation before the product. */
const matvecInputs: readonly MatvecInput[] = ["plain", "silu"];

/**
 * The kernels of a format that compute right on this device, and what was wrong with those that are left out.
 * @throws DeviceError when the device gets an operation wrong by every kernel there is
 */
export async function checkFormat(
  context: Context,
  pool: ActivationPool,
  formatId: WeightFormatId,
): Promise<{ kernels: FormatKernels; problems: string[] }> {
  const { matvecs, matmuls, ...common } = candidates(context.device, gpuFormat(formatId));
  const test = await testProduct(context, pool, formatId, { ...common, matmuls, matvecs: {} });
  const { thresholds } = test;
  try {
    const goodMatmuls: (typeof matmuls)[number][] = [];
    for (const m of matmuls) {
      const only = { ...common, matvecs: {}, matmuls: [m] };
      const options = m.tile?.halves ? {} : { thresholds };
      if (await test.works(m.kernel.name, only, m.tokens + 3, options, m.tolerance)) goodMatmuls.push(m);
    }
    const goodMatvecs: Partial<Record<MatvecInput, MatvecKernels>> = {};
    for (const input of matvecInputs) {
      const { matvecs: dense, sparseMatvecs } = matvecs(input);
      const firstRight = async (use: keyof MatvecKernels, kernels: readonly MatvecKernel[], more: LinearOptions) => {
        for (const kernel of kernels) {
          const only = { ...common, matmuls, matvecs: { [input]: { [use]: kernel } } };
          const options = { gate: test.gateOf(input), ...more };
          const { name } = kernel;
          const share = toleranceOf(kernel);
          if (!(await test.works(name, only, 1, options, share))) continue;
          // What a gate stands before is no norm's result.
          if (input === "plain" && !(await test.worksAfterNorm(name, only, options, share))) continue;
          if (await test.worksBeforeNorm(name, only, options)) return kernel;
        }
      };
      goodMatvecs[input] = {
        matvec: await firstRight("matvec", dense, {}),
        sparseMatvec: await firstRight("sparseMatvec", sparseMatvecs, { thresholds }),
      };
    }
    if (!(await test.embedWorks()) || goodMatmuls.length === 0) {
      throw new DeviceError(`this GPU computes wrongly: ${test.problems.join("; ")}`);
    }
    const others = { ...common, matvecs: goodMatvecs };
    const kernels = { ...others, matmuls: await withoutSlower(context, pool, formatId, others, goodMatmuls) };
    return { kernels, problems: test.problems };
  } finally {
    test.release();
  }
}

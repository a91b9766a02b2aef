import { UsageError } from "../core/index.js";
import type { StoredFactors } from "../io/index.js";
import type { Activation, Backend, LinearOptions, Matrix, Region } from "../kernels/index.js";
import type { MatrixShape } from "../tensor/index.js";
import { chainProblem, factorChain } from "../tensor/internal.js";
import { chainFormat } from "./chainFormat.js";
import { denseSource } from "./denseSource.js";
import type { ChainRun } from "./morphemeChain.js";

/** A matrix as factors on a backend, which is never made: see `ChainStep`. */
export interface Chain {
  readonly steps: readonly { readonly matrix: Matrix; readonly turned: number; readonly run: number }[];
  /** Rows of a hybrid train that are stored as they are: columns [first, first + matrix.rows) of what it gives. */
  readonly dense?: { readonly first: number; readonly matrix: Matrix };
  /** In the place of steps. */
  readonly morphemes?: { readonly run: ChainRun };
  /** f32 [1, rows], added to every row. */
  readonly bias?: Matrix;
  readonly byteLength: number;
}

/**
 * @param shape what the factors make
 * @param bias f32 [what the chain gives]
 * @throws UsageError for factors that nothing can be multiplied with here
 */
export async function loadChain(
  region: Region,
  name: string,
  { form, read }: StoredFactors,
  shape: MatrixShape,
  bias?: Float32Array,
): Promise<Chain> {
  const problem = chainProblem(form, shape);
  if (problem !== undefined) {
    throw new UsageError(`${name}: ${problem}; rarefy export --format safetensors multiplies the factors out`);
  }
  const parts = await read();
  let byteLength = 0;
  const load = async (part: string, rows: number, cols: number, values: Float32Array): Promise<Matrix> => {
    const matrix = await region.loadMatrix([denseSource(`${name}.${part}`, rows, cols, values)], chainFormat, {});
    byteLength += matrix.byteLength;
    return matrix;
  };
  const added = bias && (await load("bias", 1, bias.length, bias));
  if (form.kind === "morphemes") {
    const { loadMorphemeChain } = await import("./morphemeChain.js");
    const morphemes = await loadMorphemeChain(region, name, form, shape, parts);
    return { steps: [], morphemes, ...(added && { bias: added }), byteLength: byteLength + morphemes.byteLength };
  }
  const steps: Chain["steps"][number][] = [];
  for (const { name: part, rows, cols, values, turned, run } of factorChain(form, shape, parts)!) {
    steps.push({ matrix: await load(part, rows, cols, values), turned, run });
  }
  const rows = form.kind === "tensor-train" ? form.dense : undefined;
  const dense = rows && {
    first: rows.first,
    matrix: await load("dense", rows.rows, shape.cols, parts.dense as Float32Array),
  };
  return { steps, ...(dense && { dense }), ...(added && { bias: added }), byteLength };
}

/** out [n, cols that are wanted] = chain(x) (+ bias) (+ out). Thresholds, of one part, hold for what enters. */
export function runChain(
  backend: Backend,
  out: Activation,
  x: Activation,
  { steps, dense, morphemes, bias }: Chain,
  {
    thresholds,
    sparseFromRow,
    accumulate = false,
  }: Pick<LinearOptions, "thresholds" | "sparseFromRow" | "accumulate"> = {},
): void {
  const { rows: n } = x;
  const taken: Activation[] = [];
  const take = (rows: number, cols: number): Activation => {
    const made = backend.allocate(rows, cols);
    taken.push(made);
    return made;
  };
  const copy = (to: Activation, from: Activation) => backend.map(to, from, { f: "scale", by: 1 });
  const sparse = (perRow: number, first = 0): LinearOptions =>
    thresholds === undefined
      ? {}
      : {
          thresholds,
          ...(sparseFromRow !== undefined && { sparseFromRow: Math.max(0, sparseFromRow - first) * perRow }),
        };

  if (morphemes !== undefined) morphemes.run(backend, out, x, accumulate, sparse);
  else multiply();
  if (bias !== undefined) {
    const added = take(n, out.cols);
    backend.embed(added, bias, new Uint32Array(n));
    backend.add(out, added);
  }
  for (const activation of taken) backend.release(activation);

  function multiply(): void {
    let now = x;
    // Rows that lie in wider ones cannot be read as more and shorter rows.
    if (n > 1 && steps[0].matrix.cols !== x.cols) {
      now = take(n, x.cols);
      copy(now, x);
    }
    for (const [s, { matrix, turned, run }] of steps.entries()) {
      const groups = now.cols / matrix.cols;
      const made = take(n * groups, matrix.rows);
      backend.linear(made, groups === 1 ? now : now.reshape(matrix.cols), matrix, s === 0 ? sparse(groups) : {});
      const whole = made.reshape(groups * matrix.rows);
      const lead = whole.cols / (turned * run);
      if (lead === 1 || turned === 1) {
        now = whole;
        continue;
      }
      now = take(n, whole.cols);
      backend.swapAxes(now, whole, { turned, run });
    }
    const put = accumulate ? (to: Activation, from: Activation) => backend.add(to, from) : copy;
    if (dense === undefined) put(out, now.columns(0, out.cols));
    else {
      const { first, matrix } = dense;
      const behind = out.cols - first - matrix.rows;
      if (first > 0) put(out.columns(0, first), now.columns(0, first));
      if (behind > 0) put(out.columns(first + matrix.rows, behind), now.columns(first, behind));
      backend.linear(out.columns(first, matrix.rows), x, matrix, { accumulate, ...sparse(1) });
    }
  }
}

import type { Activation, Backend, LinearOptions, Matrix, Region, Vector } from "../kernels/index.js";
import type { FactorParts, MatrixShape, Morphemes } from "../tensor/index.js";
import { factorRows, morphemeNormEpsilon } from "../tensor/internal.js";
import { chainFormat } from "./chainFormat.js";
import { denseSource } from "./denseSource.js";
import { padTo4 } from "./footprint.js";

/**
 * Products with a matrix whose rows are made of morphemes, which is never made: x is multiplied with every morpheme once, at the last
 * place, and each row takes its own of that (`Backend.morphemeScores`). A norm of the rows, (v − mean v) · s · w + b, becomes one of x:
 * v · (w ⊙ x − mean(w ⊙ x)) · s + b · x.
 */
interface MorphemeChain {
  readonly form: Morphemes;
  /** [all terms' morphemes, width], f32 */
  readonly table: Matrix;
  /** The same numbers, and the morphemes of every row. */
  readonly vectors: Vector;
  readonly index: Vector;
  readonly norm?: {
    /** [cols, cols]: makes w ⊙ x − mean(w ⊙ x). */
    readonly centre: Matrix;
    /** b · x in one of four columns [4, cols], and that to every row [rows, 4]. */
    readonly shift: Matrix;
    readonly spread: Matrix;
    /** s of every row. */
    readonly scale: Vector;
  };
}

/**
 * out [n, rows in fours] = W·x (+ out).
 * @param sparse options of a product with the rows of x from `first` on, each in so many pieces
 */
export type ChainRun = (
  backend: Backend,
  out: Activation,
  x: Activation,
  accumulate: boolean,
  sparse: (pieces: number, first: number) => LinearOptions,
) => void;

export async function loadMorphemeChain(
  region: Region,
  name: string,
  form: Morphemes,
  shape: MatrixShape,
  parts: FactorParts,
): Promise<{ run: ChainRun; byteLength: number }> {
  const { rows, cols } = shape;
  let byteLength = 0;
  const load = async (part: string, rows: number, cols: number, values: Float32Array): Promise<Matrix> => {
    const matrix = await region.loadMatrix([denseSource(`${name}.${part}`, rows, cols, values)], chainFormat, {});
    byteLength += matrix.byteLength;
    return matrix;
  };
  const vector = (values: Float32Array): Vector => {
    byteLength += values.byteLength;
    return region.loadVector(values);
  };
  const numbers = parts.table as Float32Array;
  const terms = padTo4(form.rank * form.morphemes);
  const padded = new Float32Array(terms * form.width);
  padded.set(numbers);
  const index = new Float32Array(padTo4(rows) * form.order);
  index.set(parts.index);
  const chain: MorphemeChain = {
    form,
    table: await load("table", terms, form.width, padded),
    vectors: vector(numbers),
    index: vector(index),
    ...(form.norm && { norm: await loadNorm() }),
  };
  return { byteLength, run: (backend, out, x, ...options) => runMorphemeChain(chain, backend, out, x, ...options) };

  async function loadNorm(): Promise<MorphemeChain["norm"]> {
    const [weight, bias] = [parts["norm.weight"], parts["norm.bias"]];
    const centring = Float32Array.from(
      { length: cols * cols },
      (_, i) => (i % (cols + 1) === 0 ? weight[i % cols] : 0) - weight[i % cols] / cols,
    );
    const shifting = new Float32Array(4 * cols);
    shifting.set(bias);
    const all = padTo4(rows);
    const spreading = Float32Array.from({ length: all * 4 }, (_, i) => (i % 4 === 0 ? 1 : 0));
    const write = factorRows({ ...form, norm: false }, shape, parts);
    const row = new Float64Array(cols);
    const scales = new Float32Array(all);
    for (let r = 0; r < rows; r++) {
      write(r, row);
      const mean = row.reduce((sum, value) => sum + value, 0) / cols;
      const variance = row.reduce((sum, value) => sum + (value - mean) ** 2, 0) / cols;
      scales[r] = 1 / Math.sqrt(variance + morphemeNormEpsilon);
    }
    return {
      centre: await load("norm.weight", cols, cols, centring),
      shift: await load("norm.bias", 4, cols, shifting),
      spread: await load("norm.bias", all, 4, spreading),
      scale: vector(scales),
    };
  }
}

/** Numbers between the two products that are held at a time; rows of x go through in pieces. */
const mostBetween = 1 << 22;

function runMorphemeChain(chain: MorphemeChain, ...[backend, out, x, accumulate, sparse]: Parameters<ChainRun>): void {
  const { form, table } = chain;
  const step = Math.max(1, Math.floor(mostBetween / (table.rows * form.width ** (form.order - 1))));
  for (let first = 0; first < x.rows; first += step) {
    const rows = Math.min(step, x.rows - first);
    runRows(backend, out.rowRange(first, rows), x.rowRange(first, rows), chain, accumulate, (pieces) =>
      sparse(pieces, first),
    );
  }
}

function runRows(
  backend: Backend,
  out: Activation,
  x: Activation,
  { form, table, vectors, index, norm }: MorphemeChain,
  accumulate: boolean,
  sparse: (pieces: number) => LinearOptions,
): void {
  const { order, width } = form;
  const run = width ** (order - 1);
  const taken: Activation[] = [];
  const take = (rows: number, cols: number): Activation => {
    const made = backend.allocate(rows, cols);
    taken.push(made);
    return made;
  };
  const entering = take(x.rows, width ** order);
  // Digits beyond the width of x meet zeros.
  if (entering.cols > x.cols) backend.write(entering, new Float32Array(entering.rows * entering.cols));
  const own = entering.columns(0, x.cols);
  if (norm === undefined) backend.map(own, x, { f: "scale", by: 1 });
  else {
    backend.linear(own, x, norm.centre, sparse(1));
    const shifted = take(x.rows, 4);
    backend.linear(shifted, x, norm.shift, sparse(1));
    backend.linear(out, shifted, norm.spread, { accumulate });
  }
  const made = take(x.rows * run, table.rows);
  backend.linear(made, entering.reshape(width), table, norm === undefined ? sparse(run) : {});
  let between = made.reshape(run * table.rows);
  if (run > 1) {
    const turned = take(x.rows, between.cols);
    backend.swapAxes(turned, between, { turned: table.rows, run: 1 });
    between = turned;
  }
  backend.morphemeScores(out, between, vectors, index, {
    ...{ order, morphemes: form.morphemes, width, rank: form.rank },
    scale: norm?.scale,
    accumulate: accumulate || norm !== undefined,
  });
  for (const activation of taken) backend.release(activation);
}

import type { RescalingMixture } from "../io/index.js";
import type { Activation, Backend, Matrix, Region, Vector } from "../kernels/index.js";
import { denseSource } from "./denseSource.js";
import type { ExpertGates } from "./expertGates.js";

/** What one MoV adapter makes of some columns: x ∘ (1 + Σ sᵢ·(lᵢ − 1)), every run of columns with an s of its own. */
export interface FactorMixture {
  readonly gates: ExpertGates;
  /** First column that is multiplied, and how many. */
  readonly start: number;
  readonly cols: number;
  /** [runs · gate width, cols] with zeros outside of each run, and its bias. */
  readonly router: Matrix;
  readonly bias: Vector;
  /** l − 1 as [cols, runs · gate width], and ones. */
  readonly factors: Matrix;
  readonly ones: Vector;
  /** The same times −1, where a factor is below 0. */
  readonly negative?: { readonly factors: Matrix; readonly ones: Vector };
}

/** Columns of the working memory of `rescaleBy`. */
export const rescalingScratch = ({ cols, router }: FactorMixture): number => 2 * router.rows + 2 * cols;

/** Multiplies x [rows, cols] in place. @param work [rows, `rescalingScratch`] */
export function rescaleBy(backend: Backend, x: Activation, mixture: FactorMixture, work: Activation): void {
  const { gates, cols, router, bias, factors, ones, negative } = mixture;
  const width = router.rows;
  const [logits, other] = [work.columns(0, width), work.columns(width, width)];
  const [by, against] = [work.columns(2 * width, cols), work.columns(2 * width + cols, cols)];
  backend.linear(logits, x, router, { bias });
  const weights = gates.weigh(logits, other);
  // Backends multiply by a ReLU: by what is above 0 and, where there is such, by what is below.
  backend.linear(by, weights, factors, { bias: ones });
  if (negative === undefined) {
    backend.gatedActivation(x, by, x, "relu");
    return;
  }
  backend.linear(against, weights, negative.factors, { bias: negative.ones });
  backend.gatedActivation(against, against, x, "relu");
  backend.map(against, against, { f: "scale", by: -1 });
  backend.gatedActivation(x, by, x, "relu");
  backend.add(x, against);
}

/** @param start first column of what is multiplied @param name for messages */
export async function loadFactorMixture(
  region: Region,
  gates: ExpertGates,
  { factors, router, experts, width }: RescalingMixture,
  start: number,
  name: string,
): Promise<FactorMixture> {
  const cols = factors.length / experts;
  const runs = cols / width;
  const inner = runs * gates.width;
  const routers = new Float32Array(inner * cols);
  const less = new Float32Array(cols * inner);
  for (let c = 0; c < cols; c++) {
    const run = Math.floor(c / width);
    for (let e = 0; e < experts; e++) {
      const at = run * gates.width + e;
      routers[at * cols + c] = router[e * width + (c % width)];
      less[c * inner + at] = factors[e * cols + c] - 1;
    }
  }
  const matrix = (part: string, rows: number, columns: number, values: Float32Array) =>
    region.loadMatrix([denseSource(`${name} ${part}`, rows, columns, values)], "f32", {});
  const vector = (value: number) => region.loadVector(new Float32Array(cols).fill(value));
  return {
    gates,
    start,
    cols,
    router: await matrix("router", inner, cols, routers),
    bias: region.loadVector(gates.bias(runs)),
    factors: await matrix("mov_l", cols, inner, less),
    ones: vector(1),
    ...(factors.some((factor) => factor < 0) && {
      negative: {
        factors: await matrix(
          "mov_l",
          cols,
          inner,
          less.map((value) => -value),
        ),
        ones: vector(-1),
      },
    }),
  };
}

/** Bytes that `loadFactorMixture` loads at most. */
export function factorMixtureBytes({ factors, experts, width }: RescalingMixture, gateWidth: number): number {
  const cols = factors.length / experts;
  const inner = (cols / width) * gateWidth;
  return 4 * (3 * inner * cols + inner + 2 * cols);
}

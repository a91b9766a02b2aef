import { type InverseFactor, inverseFactor } from "./linalg/index.js";
import type { InputStatistics } from "./statistics.js";

/** The layer objective is Σ ‖(Ŵ − W)·x‖² / tokens = ½ tr(D·H·Dᵀ), so H = 2/tokens · Σ x·xᵀ. */
const scaleOf = (statistics: InputStatistics) => 2 / Math.max(1, statistics.tokens);

/**
 * The factored, damped Hessian of an input, made once for all layers that read it.
 * @param damping share of the mean curvature added to the diagonal
 */
export function layerFactor(statistics: InputStatistics, damping: number): InverseFactor {
  return statistics.derive(`inverseFactor ${damping}`, () =>
    inverseFactor(statistics.get("gram"), statistics.cols, scaleOf(statistics), damping),
  );
}

/** The damped H itself, symmetric f64 [cols, cols]. */
export function dampedHessian(statistics: InputStatistics, damping: number): Float64Array {
  const { diagonal } = layerFactor(statistics, damping);
  const scale = scaleOf(statistics);
  const stride = statistics.cols + 1;
  return Float64Array.from(statistics.get("gram"), (sum, i) => (i % stride === 0 ? diagonal[i / stride] : sum * scale));
}

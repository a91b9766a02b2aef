import { choleskyInPlace, solveCholesky } from "../../compress/internal.js";

/** A smooth convex function of a few numbers. */
export interface Objective {
  value(at: Float64Array): number;
  /** Its gradient, and its curvature f64 [n, n], positive definite. */
  slope(at: Float64Array): { gradient: Float64Array; curvature: Float64Array };
}

const mostSteps = 100;
/** Where no step lowers the value by more than rounding, or the gradient is this small beside it, the least is found. */
const tolerance = 1e-12;

/** Where the function is least, by Newton's steps, halved while they go too far. @param from overwritten with the result */
export function minimise({ value, slope }: Objective, from: Float64Array): Float64Array {
  const n = from.length;
  let now = value(from);
  for (let step = 0; step < mostSteps; step++) {
    const { gradient, curvature } = slope(from);
    if (!choleskyInPlace(curvature, n)) break;
    const move = Float64Array.from(gradient);
    solveCholesky(curvature, n, move);
    const fall = gradient.reduce((sum, g, i) => sum + g * move[i], 0);
    if (!(fall > tolerance * Math.abs(now))) break;
    let share = 1;
    const at = (by: number) => from.map((x, i) => x - by * move[i]);
    while (share > tolerance && !(value(at(share)) < now)) share /= 2;
    if (share <= tolerance) break;
    from.set(at(share));
    now = value(from);
  }
  return from;
}

import type { ParameterInfo } from "../values.js";

/**
 * Erdős-Rényi-kernel densities (Evci et al. 2020): a matrix's density is proportional to (in + out) / (in · out), capped at
 * 1, so that all matrices together have `density`.
 * @returns how many weights each matrix keeps, by name; their sum is within one of density · all weights
 */
export function erkCounts(matrices: readonly ParameterInfo[], density: number): Map<string, number> {
  const size = ({ shape }: ParameterInfo) => shape[0] * shape[1];
  const raw = ({ shape }: ParameterInfo) => shape[0] + shape[1];
  const total = matrices.reduce((sum, info) => sum + size(info), 0);
  const wanted = Math.round(density * total);

  // Matrices that would pass density 1 are full; the rest share what is left, until none passes any more.
  const full = new Set<ParameterInfo>();
  let scale = 0;
  for (;;) {
    const rest = matrices.filter((info) => !full.has(info));
    const left = wanted - [...full].reduce((sum, info) => sum + size(info), 0);
    scale = left / rest.reduce((sum, info) => sum + raw(info), 0);
    const passing = rest.filter((info) => scale * raw(info) > size(info));
    if (passing.length === 0) break;
    for (const info of passing) full.add(info);
  }
  // Rounding errors are carried on, so that the counts add up.
  const counts = new Map<string, number>();
  let exact = 0;
  let given = 0;
  for (const info of matrices) {
    exact += full.has(info) ? size(info) : scale * raw(info);
    const count = Math.min(size(info), Math.round(exact) - given);
    counts.set(info.name, count);
    given += count;
  }
  return counts;
}

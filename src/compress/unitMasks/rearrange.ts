/**
 * Gradients of a loss by the units of one block and kind, as if every unit were multiplied by a mask of 1.
 * @property values f64 [batches, units], of the mean loss of each batch
 */
export interface UnitGradients {
  values: Float64Array;
  batches: number;
  units: number;
}

/** f64 [units]: Σ over the batches of the squared gradients, the diagonal of the empirical Fisher information. */
export function fisherDiagonal({ values, units }: UnitGradients): Float64Array {
  const diagonal = new Float64Array(units);
  for (let i = 0; i < values.length; i++) diagonal[i % units] += values[i] ** 2;
  return diagonal;
}

/** zᵀ·F·z = Σ over the batches of (Σ gradients of what is gone)², z = 1 where `mask` is 0: twice the loss expected of it. */
export function fisherCost({ values, units }: UnitGradients, mask: Uint8Array): number {
  let cost = 0;
  for (let start = 0; start < values.length; start += units) {
    let sum = 0;
    for (let u = 0; u < units; u++) if (mask[u] === 0) sum += values[start + u];
    cost += sum * sum;
  }
  return cost;
}

/**
 * Chooses anew which units of a block are gone, as many as before, by all of the block's Fisher information and not its diagonal
 * alone (Kwon et al. 2022, section 4.2). It begins with the units of the smallest diagonal; then every other one, in the
 * order of the diagonal, joins them, and whichever is missed least comes back. The cost never rises.
 * @param kept how many stay
 * @returns u8 [units], 1 = keep
 */
export function rearrangeMask(gradients: UnitGradients, kept: number): Uint8Array {
  const { values, units, batches } = gradients;
  const diagonal = fisherDiagonal(gradients);
  const order = Array.from(diagonal.keys()).sort((a, b) => diagonal[a] - diagonal[b] || a - b);
  // One row for each unit, so that sums run along it.
  const byUnit = new Float64Array(values.length);
  for (let b = 0; b < batches; b++) for (let u = 0; u < units; u++) byUnit[u * batches + b] = values[b * units + u];
  const sums = new Float64Array(batches);
  const add = (unit: number, sign: 1 | -1) => {
    for (let b = 0; b < batches; b++) sums[b] += sign * byUnit[unit * batches + b];
  };
  const gone = order.slice(0, units - kept);
  for (const unit of gone) add(unit, 1);
  for (const newcomer of gone.length === 0 ? [] : order.slice(units - kept)) {
    gone.push(newcomer);
    add(newcomer, 1);
    let [back, least] = [0, Number.POSITIVE_INFINITY];
    for (const [place, unit] of gone.entries()) {
      // |s − g|² less |s|², which all have in common.
      let change = diagonal[unit];
      const row = unit * batches;
      for (let b = 0; b < batches; b++) change -= 2 * sums[b] * byUnit[row + b];
      if (change < least) [back, least] = [place, change];
    }
    add(gone[back], -1);
    gone.splice(back, 1);
  }
  const mask = new Uint8Array(units).fill(1);
  for (const unit of gone) mask[unit] = 0;
  return mask;
}

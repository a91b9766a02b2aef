import type { FloatArray, ParameterInfo, SharedUnits } from "../values.js";

/**
 * Puts the units of groups into another order, in all matrices and biases that have a part of them; what the model computes stays
 * the same but for rounding.
 * @param orders unit of the old order that becomes each, by kind and group
 */
export function reorderUnits(
  parameters: readonly ParameterInfo[],
  weights: ReadonlyMap<string, FloatArray>,
  orders: ReadonlyMap<string, ArrayLike<number>>,
): void {
  for (const { name, shape, shared = [] } of parameters) {
    const [rows, cols = 1] = shape;
    for (const { type, group, axis, count } of shared) {
      const order = orders.get(orderKey(type, group));
      if (order === undefined) continue;
      const values = weights.get(name)!;
      const before = values.slice();
      const size = (axis === "rows" ? rows : cols) / count;
      for (let i = 0; i < values.length; i++) {
        const [r, c] = [Math.floor(i / cols), i % cols];
        const line = axis === "rows" ? r : c;
        const from = order[Math.floor(line / size)] * size + (line % size);
        values[i] = axis === "rows" ? before[from * cols + c] : before[r * cols + from];
      }
    }
  }
}

/** The name of a group among orders. */
export const orderKey = (kind: SharedUnits["type"], group: string): string => `${kind}.${group}`;

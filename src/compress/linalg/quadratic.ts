import { addProductTransposed, view } from "./matmul.js";

const panel = 96;

/** tr(D·G·Dᵀ) for d [rows, cols] and a symmetric g [cols, cols]; half of g's products are spared by symmetry. */
export function quadraticTrace(d: Float64Array, g: Float64Array, rows: number, cols: number): number {
  const product = new Float64Array(rows * panel);
  let total = 0;
  const add = (weight: number, start: number, width: number, from: number, depth: number) => {
    product.fill(0);
    addProductTransposed(
      1,
      view(d, cols, 0, from),
      view(g, cols, start, from),
      view(product, panel),
      rows,
      width,
      depth,
    );
    for (let r = 0; r < rows; r++) {
      let sum = 0;
      for (let i = 0; i < width; i++) sum += product[r * panel + i] * d[r * cols + start + i];
      total += weight * sum;
    }
  };
  for (let start = 0; start < cols; start += panel) {
    const width = Math.min(panel, cols - start);
    add(2, start, width, 0, start);
    add(1, start, width, start, width);
  }
  return total;
}

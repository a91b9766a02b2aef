/** A row-major f64 matrix inside a larger array: element (i, j) is `data[offset + i * stride + j]`. */
export interface MatrixView {
  data: Float64Array;
  offset: number;
  stride: number;
}

export function view(data: Float64Array, stride: number, row = 0, col = 0): MatrixView {
  return { data, offset: row * stride + col, stride };
}

// Tiles of b this large stay in the second-level cache while all of a passes by.
export const depthTile = 256;
const colTile = 96;

/** c [m, n] += alpha · a [m, depth] · bᵀ, with b [n, depth]: every inner loop runs along two rows. */
export function addProductTransposed(
  alpha: number,
  a: MatrixView,
  b: MatrixView,
  c: MatrixView,
  m: number,
  n: number,
  depth: number,
): void {
  for (let k = 0; k < depth; k += depthTile) {
    const k1 = Math.min(depthTile, depth - k);
    for (let j = 0; j < n; j += colTile) {
      const n1 = Math.min(colTile, n - j);
      const bTile = { data: b.data, offset: b.offset + j * b.stride + k, stride: b.stride };
      const cTile = { data: c.data, offset: c.offset + j, stride: c.stride };
      multiplyTile(alpha, { data: a.data, offset: a.offset + k, stride: a.stride }, bTile, cTile, m, n1, k1);
    }
  }
}

/** Nine dot products at a time: as many as fit the registers with their six operands. */
function multiplyTile(
  alpha: number,
  aView: MatrixView,
  bView: MatrixView,
  cView: MatrixView,
  m: number,
  n: number,
  depth: number,
): void {
  const a = aView.data;
  const b = bView.data;
  const c = cView.data;
  const wholeRows = m - (m % 3);
  const wholeCols = n - (n % 3);
  for (let i = 0; i < wholeRows; i += 3) {
    const a0 = aView.offset + i * aView.stride;
    const a1 = a0 + aView.stride;
    const a2 = a1 + aView.stride;
    for (let j = 0; j < wholeCols; j += 3) {
      const b0 = bView.offset + j * bView.stride;
      const b1 = b0 + bView.stride;
      const b2 = b1 + bView.stride;
      let s00 = 0;
      let s01 = 0;
      let s02 = 0;
      let s10 = 0;
      let s11 = 0;
      let s12 = 0;
      let s20 = 0;
      let s21 = 0;
      let s22 = 0;
      for (let k = 0; k < depth; k++) {
        const y0 = b[b0 + k];
        const y1 = b[b1 + k];
        const y2 = b[b2 + k];
        let x = a[a0 + k];
        s00 += x * y0;
        s01 += x * y1;
        s02 += x * y2;
        x = a[a1 + k];
        s10 += x * y0;
        s11 += x * y1;
        s12 += x * y2;
        x = a[a2 + k];
        s20 += x * y0;
        s21 += x * y1;
        s22 += x * y2;
      }
      const c0 = cView.offset + i * cView.stride + j;
      const c1 = c0 + cView.stride;
      const c2 = c1 + cView.stride;
      c[c0] += alpha * s00;
      c[c0 + 1] += alpha * s01;
      c[c0 + 2] += alpha * s02;
      c[c1] += alpha * s10;
      c[c1 + 1] += alpha * s11;
      c[c1 + 2] += alpha * s12;
      c[c2] += alpha * s20;
      c[c2 + 1] += alpha * s21;
      c[c2 + 2] += alpha * s22;
    }
  }
  for (let i = 0; i < m; i++) {
    for (let j = i < wholeRows ? wholeCols : 0; j < n; j++) {
      const a0 = aView.offset + i * aView.stride;
      const b0 = bView.offset + j * bView.stride;
      let sum = 0;
      for (let k = 0; k < depth; k++) sum += a[a0 + k] * b[b0 + k];
      c[cView.offset + i * cView.stride + j] += alpha * sum;
    }
  }
}

/** a [m, depth] · bᵀ with b [n, depth], as a new f64 [m, n]. */
export function multiplyTransposed(
  a: Float64Array,
  b: Float64Array,
  m: number,
  n: number,
  depth: number,
): Float64Array {
  const out = new Float64Array(m * n);
  addProductTransposed(1, view(a, depth), view(b, depth), view(out, n), m, n, depth);
  return out;
}

/** The transpose of a row-major [rows, cols] matrix, as f64 [cols, rows]. */
export function transposed(a: ArrayLike<number>, rows: number, cols: number): Float64Array {
  const out = new Float64Array(rows * cols);
  for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) out[c * rows + r] = a[r * cols + c];
  return out;
}

/** Copies one triangle of a symmetric [n, n] matrix, stored in its lower half, to the upper one. */
export function mirrorLower(a: Float64Array | Float32Array, n: number): void {
  for (let i = 0; i < n; i++) for (let j = 0; j < i; j++) a[j * n + i] = a[i * n + j];
}

/**
 * Bit masks u8 [rows, ⌈cols / 8⌉] of a matrix [rows, cols]: entry c of a row is bit c mod 8 of byte ⌊c / 8⌋.
 */

export const maskStride = (cols: number): number => Math.ceil(cols / 8);

/** The entries that are not 0. */
export function maskOf(values: ArrayLike<number>, rows: number, cols: number): Uint8Array {
  const stride = maskStride(cols);
  const mask = new Uint8Array(rows * stride);
  for (let r = 0, i = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++, i++) if (values[i] !== 0) mask[r * stride + (c >> 3)] |= 1 << (c & 7);
  }
  return mask;
}

/** Number of set bits of every byte. */
const populations = Uint8Array.from({ length: 256 }, (_, byte) => {
  let count = 0;
  for (let rest = byte; rest > 0; rest >>= 1) count += rest & 1;
  return count;
});

/** Set bits of every row; undefined when a bit beyond the columns is set. */
export function rowPopulations(mask: Uint8Array, rows: number, cols: number): Float64Array | undefined {
  const stride = maskStride(cols);
  const beyond = cols % 8 === 0 ? 0 : (0xff << (cols % 8)) & 0xff;
  const counts = new Float64Array(rows);
  for (let r = 0; r < rows; r++) {
    if ((mask[(r + 1) * stride - 1] & beyond) !== 0) return undefined;
    for (let i = r * stride; i < (r + 1) * stride; i++) counts[r] += populations[mask[i]];
  }
  return counts;
}

type Elements = Uint8Array | Uint16Array | Uint32Array;
type Numbers = Uint8Array | Float32Array;

/** Puts packed[0], packed[1] … where the bits are set in [rows, cols], row by row; other entries are left alone. */
export function scatter<T extends Elements>(mask: Uint8Array, rows: number, cols: number, packed: T, out: T): void {
  const stride = maskStride(cols);
  let next = 0;
  for (let r = 0; r < rows; r++) {
    for (let i = 0; i < stride; i++) {
      const at = r * cols + i * 8;
      // From set bit to set bit: which bits are set is nothing that a processor foresees.
      for (let bits = mask[r * stride + i]; bits !== 0; bits &= bits - 1) {
        out[at + 31 - Math.clz32(bits & -bits)] = packed[next++];
      }
    }
  }
}

/** Takes the entries whose bits are set, row by row. */
export function gather<T extends Numbers>(mask: Uint8Array, rows: number, cols: number, values: T, out: T): void {
  const stride = maskStride(cols);
  let next = 0;
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) {
      if ((mask[r * stride + (c >> 3)] >> (c & 7)) & 1) out[next++] = values[r * cols + c];
    }
  }
}

/** Bytes as elements of `size` bytes: a view where they are aligned, else a copy. */
export function elementsOf(bytes: Uint8Array, size: number): Elements {
  const { buffer, byteOffset, byteLength } = bytes.byteOffset % size === 0 ? bytes : bytes.slice();
  if (size === 1) return new Uint8Array(buffer, byteOffset, byteLength);
  if (size === 2) return new Uint16Array(buffer, byteOffset, byteLength / 2);
  return new Uint32Array(buffer, byteOffset, byteLength / 4);
}

/** Two bits in every four entries of a row, those of its non-zeros among them; undefined where four have more than two. */
export function maskOf24(values: ArrayLike<number>, rows: number, cols: number): Uint8Array | undefined {
  if (cols % 4 !== 0) return undefined;
  const mask = new Uint8Array(rows * maskStride(cols));
  for (let i = 0; i < rows * cols; i += 4) {
    let four = 0;
    for (let c = 0; c < 4; c++) if (values[i + c] !== 0) four |= 1 << c;
    // Lowest free positions fill up a four that has fewer non-zeros.
    for (let c = 0; populations[four] < 2; c++) four |= 1 << c;
    if (populations[four] > 2) return undefined;
    const c = i % cols;
    mask[Math.floor(i / cols) * maskStride(cols) + (c >> 3)] |= four << (c & 7);
  }
  return mask;
}

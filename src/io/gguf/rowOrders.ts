/** Rows of a matrix, or entries of a vector, in another order than they are stored. */
export type ReadRows<T> = (start: number, count: number) => Promise<T>;

/**
 * Rows of maps that share a tensor: row r of heads that have the rows of all maps together ↔ row of maps one behind the other.
 * Both ways runs of `headDim` rows stay together.
 */
export interface PerHead {
  maps: number;
  heads: number;
  headDim: number;
}

/** The run of the file in which run `run` of the checkpoint lies. */
export const runInFile = ({ maps, heads }: PerHead, run: number): number =>
  (run % maps) * heads + Math.floor(run / maps);
/** The reverse. */
export const runInCheckpoint = ({ maps, heads }: PerHead, run: number): number =>
  (run % heads) * maps + Math.floor(run / heads);

/**
 * Reads rows in another order.
 * @param place the run of `headDim` stored rows that stands at this run
 * @param read stored rows
 */
export async function readReordered<T extends Uint8Array | Float32Array>(
  { headDim }: PerHead,
  place: (run: number) => number,
  read: ReadRows<T>,
  start: number,
  count: number,
): Promise<T[]> {
  const pieces: T[] = [];
  for (let row = start; row < start + count; ) {
    const within = row % headDim;
    const length = Math.min(headDim - within, start + count - row);
    pieces.push(await read(place(Math.floor(row / headDim)) * headDim + within, length));
    row += length;
  }
  return pieces;
}

/** f32 [cols, rows] of [rows, cols]. */
export function turned(values: Float32Array, rows: number): Float32Array {
  const cols = values.length / rows;
  const out = new Float32Array(values.length);
  for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) out[c * rows + r] = values[r * cols + c];
  return out;
}

/** Rows of the turned matrix. It is held until its last row was read. @param whole f32 [rows, cols] */
export function readTurned(whole: () => Promise<Float32Array>, rows: number, cols: number): ReadRows<Float32Array> {
  let held: Promise<Float32Array> | undefined;
  return async (start, count) => {
    held ??= whole().then((values) => turned(values, rows));
    const values = await held;
    if (start + count === cols) held = undefined;
    return values.slice(start * rows, (start + count) * rows);
  };
}

import { linearsOf, type ModelSpec } from "../arch/index.js";
import type { Checkpoint } from "../io/index.js";
import { dtypeBytes, toFloat32 } from "../tensor/index.js";

/** Which weights of one matrix are kept. */
export interface MaskPicture {
  /** The tensor. */
  name: string;
  rows: number;
  cols: number;
  /** The upper left corner, one pixel a weight: u8, 255 where it is 0. */
  corner: { width: number; height: number; pixels: Uint8Array };
  /** The whole matrix in cells: u8, 255 where all are 0. */
  overview: { width: number; height: number; pixels: Uint8Array };
}

const cornerSize = 48;
const overviewSize = 64;
/** Rows are read a few at a time. */
const chunkRows = 256;

/** Draws a matrix of a checkpoint. */
export async function drawMask(checkpoint: Checkpoint, name: string): Promise<MaskPicture> {
  const { dtype, shape } = checkpoint.tensors.get(name)!;
  const [rows, cols] = shape;
  const corner = canvas(Math.min(cornerSize, cols), Math.min(cornerSize, rows));
  const overview = canvas(Math.min(overviewSize, cols), Math.min(overviewSize, rows));
  const zeros = new Float64Array(overview.pixels.length);
  const counts = new Float64Array(overview.pixels.length);
  const rowBytes = cols * dtypeBytes[dtype];
  for (let start = 0; start < rows; start += chunkRows) {
    const count = Math.min(chunkRows, rows - start);
    const values = toFloat32(dtype, await checkpoint.read(name, start * rowBytes, count * rowBytes));
    for (let r = 0; r < count; r++) {
      const line = Math.floor(((start + r) * overview.height) / rows) * overview.width;
      for (let c = 0; c < cols; c++) {
        const zero = values[r * cols + c] === 0 ? 1 : 0;
        const cell = line + Math.floor((c * overview.width) / cols);
        zeros[cell] += zero;
        counts[cell]++;
        if (start + r < corner.height && c < corner.width) corner.pixels[(start + r) * corner.width + c] = 255 * zero;
      }
    }
  }
  for (let i = 0; i < zeros.length; i++) overview.pixels[i] = Math.round((255 * zeros[i]) / counts[i]);
  return { name, rows, cols, corner, overview };
}

const canvas = (width: number, height: number) => ({ width, height, pixels: new Uint8Array(width * height) });

/** The tensors to draw of a model: those of the first and the last map of the block in the middle, where they are matrices. */
export function masksToDraw({ tensors }: Checkpoint, { blocks }: ModelSpec): string[] {
  const maps = linearsOf(blocks[Math.floor(blocks.length / 2)]);
  return [maps[0], maps[maps.length - 1]]
    .map(({ weight }) => weight.tensor)
    .filter((name) => tensors.get(name)?.shape.length === 2);
}

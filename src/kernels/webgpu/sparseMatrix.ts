import type { JobOptions } from "../../core/index.js";
import { groupSize, packSparse, padded, type SparseFormatId, sparseFormats } from "../../pack/index.js";
import type { Matrix, MatrixPart, RowSource } from "../backend.js";
import { type Device, type GpuMemory, usage } from "./device.js";
import { gpuFormat } from "./formats.js";
import { type FormatKernels, type GpuMatrix, planChunks } from "./matrix.js";
import { readTile } from "./readTile.js";
import type { SparseKernels } from "./sparseKernels.js";
import { sparseTileRows } from "./wgsl/sparseAccess.js";

/** Consecutive tiles of a matrix that lie in one buffer. */
export interface SparseChunk {
  readonly memory: GpuMemory;
  /** Of the tiles, counted over all parts. */
  readonly firstTile: number;
  readonly tiles: number;
}

export interface SparsePart extends MatrixPart {
  readonly firstTile: number;
  readonly tiles: number;
}

/**
 * A matrix that leaves zeros out. Like a dense one it lies on the GPU in row tiles, each packed by itself as src/pack does;
 * as their sizes differ, a table says where each begins.
 */
export interface GpuSparseMatrix extends Matrix {
  readonly format: SparseFormatId;
  readonly parts: readonly SparsePart[];
  readonly groups: number;
  readonly chunks: readonly SparseChunk[];
  /** Two vec4<u32> per tile: (first word in its buffer, rows, first output column, part), (first dense unit, –, –, –). */
  readonly places: GpuMemory;
  readonly kernels: SparseKernels;
  /** The same matrix dense, in memory that is found when it is needed. */
  readonly dense: Omit<GpuMatrix, "chunks"> & { readonly plan: ReturnType<typeof planChunks> };
}

export const isSparseMatrix = (matrix: Matrix): matrix is GpuSparseMatrix =>
  Object.hasOwn(sparseFormats, matrix.format);

/** Tiles gather in memory up to this size before they become a buffer. */
const chunkBytes = 128 * 2 ** 20;

/**
 * Reads the rows of one tile, packs them, and forgets them once their buffer is written.
 * @throws DeviceError when the GPU has no memory for the matrix, UsageError for weights without the format's pattern
 */
export async function loadSparseMatrix(
  device: Device,
  sources: readonly RowSource[],
  format: SparseFormatId,
  kernels: { sparse: SparseKernels; dense: FormatKernels },
  job: JobOptions,
): Promise<GpuSparseMatrix> {
  const cols = sources[0].cols;
  const parts = placeParts(sources);
  const rows = sources.reduce((sum, source) => sum + source.rows, 0);
  const layout = gpuFormat(sparseFormats[format].value);
  const limit = Math.min(device.limits.maxStorageBufferBindingSize, device.limits.maxBufferSize);
  const plan = planChunks(layout, parts, cols, limit);
  const places = new Uint32Array(8 * parts.reduce((sum, part) => sum + part.tiles, 0));
  for (const { runs } of plan) {
    for (const { part, firstTile, tiles, unitBase } of runs) {
      const fullTile = layout.format.byteLength(layout.tileRows, cols) / 16;
      for (let i = 0; i < tiles; i++) places[8 * (parts[part].firstTile + firstTile + i) + 4] = unitBase + i * fullTile;
    }
  }

  const what = sources.map((source) => source.name).join(", ");
  const chunks: SparseChunk[] = [];
  const memories: GpuMemory[] = [];
  const upload = (bytes: number, fill: (memory: GpuMemory) => void) =>
    device.withinMemory(what, () => {
      const memory = device.allocate(bytes, usage.storage | usage.copyDst, what);
      memories.push(memory);
      fill(memory);
      return memory;
    });
  let byteLength = 0;
  try {
    let gathered: Uint8Array[] = [];
    let gatheredBytes = 0;
    let firstTile = 0;
    const write = async () => {
      const tiles = gathered;
      // Kernels read whole words, and one beyond the last code.
      const memory = await upload(gatheredBytes + 8, (target) => {
        let offset = 0;
        for (const tile of tiles) {
          device.gpu.queue.writeBuffer(target.buffer, offset, tile as Uint8Array<ArrayBuffer>);
          offset += tile.byteLength;
        }
      });
      chunks.push({ memory, firstTile, tiles: tiles.length });
      firstTile += tiles.length;
      gathered = [];
      gatheredBytes = 0;
    };
    for (const [p, source] of sources.entries()) {
      for (let tile = 0; tile < parts[p].tiles; tile++) {
        job.signal?.throwIfAborted();
        const start = tile * sparseTileRows;
        const count = Math.min(sparseTileRows, source.rows - start);
        const { weights, scales } = await readTile(source, start, count);
        const exact = packSparse(sparseFormats[format], weights, count, cols, scales);
        const packed = wholeWords(exact);
        if (gathered.length > 0 && gatheredBytes + packed.byteLength + 8 > Math.min(chunkBytes, limit)) await write();
        places.set([gatheredBytes / 4, count, parts[p].rowStart + start, p], 8 * (firstTile + gathered.length));
        gathered.push(packed);
        gatheredBytes += packed.byteLength;
        byteLength += exact.byteLength;
      }
    }
    await write();
    const placesMemory = await upload(places.byteLength, (target) =>
      device.gpu.queue.writeBuffer(target.buffer, 0, places),
    );
    device.throwIfFailed();
    const groups = padded(cols) / groupSize;
    const shape = { rows, cols, parts, byteLength, groups };
    const dense = { ...shape, format: layout.format.id, gpuFormat: layout, kernels: kernels.dense, plan };
    return { ...shape, format, chunks, places: placesMemory, kernels: kernels.sparse, dense };
  } catch (error) {
    for (const memory of memories) device.free(memory);
    throw error;
  }
}

function placeParts(sources: readonly RowSource[]): SparsePart[] {
  const parts: SparsePart[] = [];
  let [rowStart, firstTile] = [0, 0];
  for (const { name, rows } of sources) {
    const tiles = Math.ceil(rows / sparseTileRows);
    parts.push({ name, rowStart, rows, firstTile, tiles });
    rowStart += rows;
    firstTile += tiles;
  }
  return parts;
}

function wholeWords(bytes: Uint8Array): Uint8Array {
  if (bytes.byteLength % 4 === 0) return bytes;
  const padding = new Uint8Array(Math.ceil(bytes.byteLength / 4) * 4);
  padding.set(bytes);
  return padding;
}

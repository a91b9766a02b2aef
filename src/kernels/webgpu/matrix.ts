import type { JobOptions } from "../../core/index.js";
import { groupSize, padded, type WeightFormatId } from "../../pack/index.js";
import type { Matrix, MatrixPart, RowSource } from "../backend.js";
import { type Device, type GpuMemory, usage } from "./device.js";
import { type GpuFormat, gpuFormat } from "./formats.js";
import { readTile } from "./readTile.js";
import { embed } from "./wgsl/embed.js";
import { matmul } from "./wgsl/matmul.js";
import { matmulTensor, matmulTensorBytes, type TensorShape, type TensorTile } from "./wgsl/matmulTensor.js";
import { expertMatvec, type MatvecTuning, matvec, matvecBytes } from "./wgsl/matvec.js";
import { listLength, type MatvecInput } from "./wgsl/matvecInputs.js";
import { rowSums } from "./wgsl/matvecSums.js";

/** Consecutive row tiles of one part that lie in one buffer. */
export interface TileRun {
  /** Index into `parts`. */
  readonly part: number;
  /** First tile, counted within the part. */
  readonly firstTile: number;
  readonly tiles: number;
  /** Where the first tile begins in the buffer, in units of 16 bytes. */
  readonly unitBase: number;
}

/** One buffer of a matrix: as many tiles as the GPU can bind at once. */
export interface Chunk {
  readonly memory: GpuMemory;
  readonly runs: readonly TileRun[];
}

export type MatvecKernel = ReturnType<typeof matvec>;

export interface MatmulKernel {
  /** Rows of x, and of W, that a workgroup takes. */
  readonly tokens: number;
  readonly blockRows: number;
  readonly kernel: ReturnType<typeof matmul> | ReturnType<typeof matmulTensor>;
  /** How far a result may be from the exact one, as a share of the sizes of its terms. */
  readonly tolerance: number;
  /** On the matrix units, how. */
  readonly tile?: TensorTile;
}

/** How far a result may be from the exact one, as a share of the sizes of its terms. */
const tolerance = 1e-4;
/** Of products of numbers rounded to f16, each within 2⁻¹² of itself: x, and a code times its scale, or the product of both. */
const roundedTolerance = { exactWeights: 3e-4, scaledWeights: 6e-4 };

/** See `tolerance`, of a kernel for one row. */
export const toleranceOf = ({ enable }: { enable?: readonly string[] }): number =>
  enable?.includes("f16") ? roundedTolerance.scaledWeights : tolerance;

export interface MatvecKernels {
  readonly matvec?: MatvecKernel;
  readonly sparseMatvec?: MatvecKernel;
}

/** The kernels that read one format; those that a device gets wrong are left out (see `selfCheck`). */
export interface FormatKernels {
  readonly embed: ReturnType<typeof embed>;
  /** Products of one row, dense and with thresholds, by what is multiplied. Without them `matmuls` serve. */
  readonly matvecs: Readonly<Partial<Record<MatvecInput, MatvecKernels>>>;
  /** Products of several rows of x, by the rows that a workgroup takes, the better of equal ones last. At least one. */
  readonly matmuls: readonly MatmulKernel[];
  /** Columns of the largest slice of `matvecs` that list their inputs: dense ones with a gate, and sparse ones. */
  readonly listedColumns: { readonly dense: number; readonly sparse: number };
}

/** What is tried for a format, best first. */
export function candidates(device: Device, format: GpuFormat) {
  const [dense, sparse] = [false, true].map((s) => matvecTunings(device, format, s));
  return {
    listedColumns: { dense: leastListed(dense), sparse: leastListed(sparse) },
    embed: embed(format),
    matvecs: (input: MatvecInput) => ({
      matvecs: dense.map((tuning) => matvec(format, false, tuning, input)),
      sparseMatvecs: sparse.map((tuning) => matvec(format, true, tuning, input)),
    }),
    matmuls: [...plainMatmuls(format), ...tensorMatmuls(device, format)],
  };
}

const leastListed = (tunings: readonly MatvecTuning[]) =>
  Math.min(...tunings.map(({ sparseColumns }) => sparseColumns));

/** Products of chosen experts. */
export function expertCandidates(device: Device, format: GpuFormat) {
  const [dense, sparse] = [false, true].map((s) =>
    matvecTunings(device, format, s).map((tuning) => expertMatvec(format, s, tuning)),
  );
  return dense.map((kernel, i) => ({ dense: kernel, sparse: sparse[i] }));
}

/** With and without subgroups and f16. */
function matvecTunings(device: Device, format: GpuFormat, sparse: boolean): MatvecTuning[] {
  const hasHalves = device.features.has("shader-f16") && format.halves !== undefined;
  return (device.subgroups32 ? [true, false] : [false]).flatMap((subgroups32) =>
    (hasHalves ? [true, false] : [false]).map((byHalves) => ({
      ...matvecTuning(device, format, sparse, subgroups32),
      byHalves,
    })),
  );
}

function plainMatmuls(format: GpuFormat): MatmulKernel[] {
  const shapes = [
    { tokens: 16, blockRows: 64, tokensPerThread: 4 },
    { tokens: 64, blockRows: Math.min(128, format.tileRows), tokensPerThread: 8 },
  ];
  return shapes.map((shape) => ({ ...shape, tolerance, kernel: matmul(format, shape) }));
}

/** Products on the matrix units, where the device has them and the format stands for numbers that f16 holds. */
function tensorMatmuls(device: Device, format: GpuFormat): MatmulKernel[] {
  const { tensorShape, limits } = device;
  const { tileRows } = format;
  if (tensorShape === undefined || format.format.id === "f32" || tileRows !== 128) return [];
  const fitting = tensorTiles.filter(
    (tile) => matmulTensorBytes(format, tensorShape, tile) <= limits.maxComputeWorkgroupStorageSize,
  );
  return fitting.map((tile) => tensorMatmul(format, tensorShape, tile));
}

export const tensorMatmul = (format: GpuFormat, shape: TensorShape, tile: TensorTile): MatmulKernel => ({
  tokens: tile.tokens,
  blockRows: format.tileRows,
  tolerance: format.scaled ? roundedTolerance.scaledWeights : roundedTolerance.exactWeights,
  tile,
  kernel: matmulTensor(format, shape, tile),
});

/** The first for few rows and with thresholds. The fastest of those tried on an NVIDIA H200; see bench/webgpu/README.md. */
const tensorTiles: readonly TensorTile[] = [
  { tokens: 64, teamsDown: 2, teamsAcross: 2, groupsAtOnce: 1, halves: false, workgroups: 0 },
  { tokens: 128, teamsDown: 2, teamsAcross: 2, groupsAtOnce: 2, halves: true, workgroups: 128 },
];

type Shape = Omit<MatvecTuning, "subgroups32" | "byHalves">;

/** The fastest of those tried on an NVIDIA H200 (f32 was hardly tuned); see bench/webgpu/README.md. */
const fastest: Readonly<Record<WeightFormatId, { dense: Shape; sparse: Shape }>> = {
  f32: {
    dense: { threads: 256, unroll: 4, groupsAside: 1, joinBySubgroups: true, sparseColumns: 4096 },
    sparse: { threads: 256, unroll: 4, groupsAside: 1, joinBySubgroups: true, sparseColumns: 4096 },
  },
  bf16: {
    dense: { threads: 512, unroll: 16, groupsAside: 1, joinBySubgroups: false, sparseColumns: 4096 },
    sparse: { threads: 512, unroll: 16, groupsAside: 1, joinBySubgroups: true, sparseColumns: 4096 },
  },
  q8: {
    dense: { threads: 512, unroll: 16, groupsAside: 1, joinBySubgroups: true, sparseColumns: 4096 },
    sparse: { threads: 256, unroll: 8, groupsAside: 4, joinBySubgroups: true, sparseColumns: 2048 },
  },
  q4: {
    dense: { threads: 512, unroll: 16, groupsAside: 4, joinBySubgroups: true, sparseColumns: 4096 },
    sparse: { threads: 256, unroll: 8, groupsAside: 8, joinBySubgroups: true, sparseColumns: 2048 },
  },
};

/** Cut down to what smaller devices hold in a workgroup. */
function matvecTuning(device: Device, format: GpuFormat, sparse: boolean, subgroups32: boolean): MatvecTuning {
  const common = { subgroups32, byHalves: false };
  // Unrolled code takes a software device seconds to compile.
  if (device.isSoftware)
    return { ...common, joinBySubgroups: true, groupsAside: 1, threads: 32, sparseColumns: 256, unroll: 1 };
  const tuning: MatvecTuning = { ...common, ...fastest[format.format.id][sparse ? "sparse" : "dense"] };
  const { maxComputeInvocationsPerWorkgroup, maxComputeWorkgroupStorageSize } = device.limits;
  tuning.threads = Math.min(tuning.threads, maxComputeInvocationsPerWorkgroup);
  while (matvecBytes(format, sparse, tuning) > maxComputeWorkgroupStorageSize) {
    const listsAreLarger = listLength(tuning.sparseColumns) > rowSums(format, tuning).poolLength;
    if (listsAreLarger && tuning.sparseColumns > 512) tuning.sparseColumns /= 2;
    else tuning.threads /= 2;
  }
  return tuning;
}

export interface GpuMatrix extends Matrix {
  readonly gpuFormat: GpuFormat;
  readonly kernels: FormatKernels;
  /** Groups of 32 columns, the last one padded. */
  readonly groups: number;
  readonly chunks: readonly Chunk[];
}

/** Bytes handed to the queue before waiting for it to take them: bounds what the driver stages. */
const stagedBytes = 64 * 2 ** 20;

/**
 * Reads the rows of one tile, packs them, writes them to the GPU and forgets them.
 * @throws DeviceError when the GPU has no memory for the matrix
 */
export async function loadMatrix(
  device: Device,
  sources: readonly RowSource[],
  formatId: WeightFormatId,
  kernels: FormatKernels,
  job: JobOptions,
): Promise<GpuMatrix> {
  const layout = gpuFormat(formatId);
  const { format, tileRows } = layout;
  const cols = sources[0].cols;
  const parts: MatrixPart[] = [];
  let rows = 0;
  let byteLength = 0;
  for (const source of sources) {
    parts.push({ name: source.name, rowStart: rows, rows: source.rows });
    rows += source.rows;
    byteLength += format.byteLength(source.rows, cols);
  }

  const limit = Math.min(device.limits.maxStorageBufferBindingSize, device.limits.maxBufferSize);
  const plan = planChunks(layout, parts, cols, limit);
  const what = sources.map((source) => source.name).join(", ");
  const chunks: Chunk[] = [];
  try {
    await device.withinMemory(what, () => {
      for (const { bytes, runs } of plan)
        chunks.push({ memory: device.allocate(bytes, usage.storage | usage.copyDst, what), runs });
    });
    let staged = 0;
    for (const { memory, runs } of chunks) {
      for (const run of runs) {
        let offset = run.unitBase * 16;
        for (let tile = run.firstTile; tile < run.firstTile + run.tiles; tile++) {
          job.signal?.throwIfAborted();
          const source = sources[run.part];
          const start = tile * tileRows;
          const count = Math.min(tileRows, source.rows - start);
          const { weights, scales } = await readTile(source, start, count);
          const packed = format.pack(weights, count, cols, scales);
          device.gpu.queue.writeBuffer(memory.buffer, offset, packed as Uint8Array<ArrayBuffer>);
          offset += packed.byteLength;
          staged += packed.byteLength;
          if (staged >= stagedBytes) {
            device.gpu.queue.submit([]);
            await device.gpu.queue.onSubmittedWorkDone();
            staged = 0;
          }
        }
      }
    }
    device.throwIfFailed();
  } catch (error) {
    for (const { memory } of chunks) device.free(memory);
    throw error;
  }
  const groups = padded(cols) / groupSize;
  return { format: formatId, rows, cols, parts, byteLength, gpuFormat: layout, kernels, groups, chunks };
}

/** Which tiles go into which buffer, none larger than `limit` bytes. */
export function planChunks(
  { format, tileRows }: GpuFormat,
  parts: readonly MatrixPart[],
  cols: number,
  limit: number,
): { bytes: number; runs: TileRun[] }[] {
  const plan = [{ bytes: 0, runs: [] as TileRun[] }];
  for (const [part, { rows }] of parts.entries()) {
    const tileBytes = (tile: number) => format.byteLength(Math.min(tileRows, rows - tile * tileRows), cols);
    const tileCount = Math.ceil(rows / tileRows);
    for (let firstTile = 0; firstTile < tileCount; ) {
      let chunk = plan[plan.length - 1];
      if (chunk.bytes > 0 && chunk.bytes + tileBytes(firstTile) > limit) {
        chunk = { bytes: 0, runs: [] };
        plan.push(chunk);
      }
      const unitBase = chunk.bytes / 16;
      let tiles = 0;
      while (firstTile + tiles < tileCount) {
        const bytes = tileBytes(firstTile + tiles);
        if (tiles > 0 && chunk.bytes + bytes > limit) break;
        chunk.bytes += bytes;
        tiles++;
      }
      chunk.runs.push({ part, firstTile, tiles, unitBase });
      firstTile += tiles;
    }
  }
  return plan;
}

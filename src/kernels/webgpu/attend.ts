import { DeviceError } from "../../core/index.js";
import type { AttentionOptions } from "../backend.js";
import type { Context } from "./context.js";
import type { GpuActivation, GpuKvCache, GpuRopeTable } from "./storage.js";
import { type AttentionShape, attention, attentionBytes, attentionMerge, mostRuns } from "./wgsl/attention.js";
import { elementThreads, ropeAppend } from "./wgsl/elementwise.js";

/** Below this many workgroups the keys are cut into runs. */
const wantedWorkgroups = 256;
const wantedInSoftware = 8;

/** Fewer keys than this are not worth a run of their own. */
const minimumRun = 32;

/** "All positions", small enough that adding a position does not wrap. */
const noWindow = 0x7fffffff;

/** Rows of a block's q, k and v as the projections gave them, and what rotates q and k. */
export interface RotatedRows {
  readonly q: GpuActivation;
  readonly k: GpuActivation;
  readonly v: GpuActivation;
  readonly table: GpuRopeTable;
}

/** Enqueues attention in the shape that suits the number of query rows; remembers the kernels it made. */
export class Attend {
  readonly #kernels = new Map<string, ReturnType<typeof attention>>();

  constructor(readonly context: Context) {}

  enqueue(
    out: GpuActivation,
    q: GpuActivation,
    cache: GpuKvCache,
    layer: number,
    options: AttentionOptions,
    rotation?: Omit<RotatedRows, "q">,
  ): void {
    const { context } = this;
    const { kvHeads, headDim } = cache.spec;
    const { queryHeads, start, scale } = options;
    const window = Math.min(options.window ?? noWindow, noWindow);
    const group = queryHeads / kvHeads;
    const shape = this.#shape(headDim, q.rows * group);
    const { k, v, table } = rotation ?? { k: q, v: q };

    const blocks = Math.ceil((q.rows * group) / shape.queries);
    const span = Math.min(start + q.rows, window + q.rows);
    const wanted = context.device.isSoftware ? wantedInSoftware : wantedWorkgroups;
    const wantedRuns = Math.min(Math.ceil(wanted / (blocks * kvHeads)), mostRuns);
    const keysPerRun = roundUp(Math.max(minimumRun, Math.ceil(span / wantedRuns)), shape.keys);
    const runs = Math.ceil(span / keysPerRun);

    const split = runs > 1;
    const rows = runs * q.rows * queryHeads;
    const sums = split ? context.scratch("attention sums", rows * headDim * 4) : out.memory;
    const states = split ? context.scratch("attention states", rows * 8) : context.nothing;
    context.recorder.run(
      this.#kernel(shape, split, rotation !== undefined),
      {
        qOffset: q.offset,
        qStride: q.stride,
        outOffset: out.offset,
        outStride: out.stride,
        tokens: q.rows,
        start,
        window,
        kvHeads,
        group,
        keysPerRun,
        scale,
        softcap: options.softcap ?? 0,
        kOffset: k.offset,
        vOffset: v.offset,
      },
      {
        outs: sums,
        qs: q.memory,
        cachedKeys: cache.keys[layer],
        cachedValues: cache.values[layer],
        states,
        ks: k.memory,
        vs: v.memory,
        cosines: table?.cos ?? q.memory,
        sines: table?.sin ?? q.memory,
      },
      [blocks, kvHeads, runs],
    );
    if (!split) return;
    context.recorder.run(
      attentionMerge,
      { headDim, heads: queryHeads, tokens: q.rows, runs, outOffset: out.offset, outStride: out.stride },
      { outs: out.memory, sums, states },
      [queryHeads, q.rows],
    );
  }

  /** `Backend.rotatedAttention`: of one row within attention itself, of several before it. */
  enqueueRotated(
    out: GpuActivation,
    { q, k, v, table }: RotatedRows,
    cache: GpuKvCache,
    layer: number,
    options: AttentionOptions,
  ): void {
    const { headDim, kvHeads } = cache.spec;
    const group = options.queryHeads / kvHeads;
    // Four elements at a time, by the one workgroup that stands for a key head; and devices bind eight buffers.
    const together = q.memory === k.memory && q.memory === v.memory;
    if (q.rows === 1 && together && headDim % 8 === 0 && this.#shape(headDim, group).queries >= group) {
      this.enqueue(out, q, cache, layer, options, { k, v, table });
      return;
    }
    const [queryPairs, keyPairs] = [q.cols / 2, k.cols / 2];
    this.context.recorder.run(
      ropeAppend,
      {
        queryPairs,
        keyPairs,
        half: headDim / 2,
        start: options.start,
        qOffset: q.offset,
        qStride: q.stride,
        kOffset: k.offset,
        kStride: k.stride,
        vOffset: v.offset,
        vStride: v.stride,
      },
      {
        qs: q.memory,
        ks: k.memory,
        vs: v.memory,
        cosines: table.cos,
        sines: table.sin,
        keys: cache.keys[layer],
        values: cache.values[layer],
      },
      [Math.ceil((queryPairs + 2 * keyPairs) / elementThreads), q.rows],
    );
    this.enqueue(out, q, cache, layer, options);
  }

  #shape(headDim: number, queryRows: number): AttentionShape {
    return fittingShape(headDim, queryRows, this.context.device.limits.maxComputeWorkgroupStorageSize);
  }

  #kernel(shape: AttentionShape, split: boolean, rotated: boolean): ReturnType<typeof attention> {
    const key = `${shape.headDim} ${shape.queries} ${shape.keys} ${split} ${rotated}`;
    let kernel = this.#kernels.get(key);
    if (kernel === undefined) {
      kernel = attention(shape, split, rotated);
      this.#kernels.set(key, kernel);
    }
    return kernel;
  }
}

/** Few shapes, so that few kernels are compiled. */
const queryCounts = [1, 4, 16];
const keyCounts = [32, 16, 8];

/** The most keys, then the most query rows per workgroup, that are of use and fit its memory. */
function fittingShape(headDim: number, queryRows: number, limitBytes: number): AttentionShape {
  const useful = queryCounts.find((queries) => queries >= queryRows) ?? queryCounts[queryCounts.length - 1];
  for (const keys of keyCounts) {
    for (const queries of queryCounts.toReversed()) {
      const shape = { headDim, queries, keys };
      if (queries <= useful && queries * 4 >= useful && attentionBytes(shape) <= limitBytes) return shape;
    }
  }
  throw new DeviceError(`attention over heads of ${headDim} does not fit the workgroup memory of this GPU`);
}

const roundUp = (n: number, multiple: number): number => Math.ceil(n / multiple) * multiple;

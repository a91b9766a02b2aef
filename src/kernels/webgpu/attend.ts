import { DeviceError } from "../../core/index.js";
import type { AttentionOptions } from "../backend.js";
import type { KvLayer } from "../kv.js";
import { codedPlaces } from "./cached.js";
import type { Context } from "./context.js";
import type { GpuMemory } from "./device.js";
import { made } from "./made.js";
import { type Seen, seenBy } from "./seen.js";
import type { GpuActivation, GpuKvCache, GpuSight, GpuVector } from "./storage.js";
import { TensorAttention } from "./tensorAttention.js";
import { TokenAttention, type TokenRotation } from "./tokenAttention.js";
import {
  type AttentionShape,
  type AttentionVariant,
  attention,
  attentionBytes,
  runKinds,
  valueSlices,
} from "./wgsl/attention.js";
import { attentionMerge, minimumRun, mostRuns, wantedWorkgroups } from "./wgsl/attentionRuns.js";
import { elementGroups } from "./wgsl/elementwise.js";
import { attentionMass, massThreads, ropeAppend } from "./wgsl/kv.js";
import { codesName } from "./wgsl/kvCodes.js";

/** Rows of a block's q, k and v as the projections gave them, and what rotates q and k. */
export interface RotatedRows extends TokenRotation {
  readonly q: GpuActivation;
}

/** Enqueues attention in the shape that suits the number of query rows; remembers the kernels it made. */
export class Attend {
  readonly #shapes = new Map<string, AttentionShape>();
  readonly #shapesOfLayer = new WeakMap<KvLayer, Map<number, AttentionShape>>();
  readonly #kernels = new Map<AttentionShape, Map<number | string, ReturnType<typeof attention>>>();
  readonly #mergeKernels = new Map<number, ReturnType<typeof attentionMerge>>();
  readonly #massKernels = new Map<string, ReturnType<typeof attentionMass>>();
  /** Ways for what they suit better, while they are on. */
  readonly tensor: TensorAttention;
  readonly token: TokenAttention;

  constructor(readonly context: Context) {
    this.tensor = new TensorAttention(context);
    this.token = new TokenAttention(context);
  }

  enqueue(
    out: GpuActivation,
    q: GpuActivation,
    cache: GpuKvCache,
    layer: number,
    options: AttentionOptions & { position?: number },
    rotation?: TokenRotation,
  ): void {
    const { context } = this;
    const { heads: kvHeads, value: valueDim } = cache.spec.layers[layer];
    const sinks = (options.sinks as GpuVector | undefined)?.memory;
    const { queryHeads, start, scale } = options;
    const group = queryHeads / kvHeads;
    const seen = seenBy(options.sight as GpuSight | undefined, q, start);
    // Only the general kernels know lists of blocks, codes and mass.
    if (!seen.listed && cache.spec.codes === undefined && cache.spec.mass === undefined) {
      if (this.token.enqueue(out, q, cache, layer, options, seen, rotation)) return;
      if (rotation === undefined && this.tensor.enqueue(out, q, cache, layer, options, seen)) return;
    }

    const { k, v, table } = rotation ?? { k: q, v: q };
    const shape = this.#shape(cache, layer, q.rows * group);
    const blocks = Math.ceil((q.rows * group) / shape.queries);
    const slices = valueSlices(valueDim);
    const wantedRuns = Math.min(Math.ceil(wantedWorkgroups(context.device) / (blocks * kvHeads * slices)), mostRuns);
    const least = Math.max(Math.ceil(minimumRun / seen.step), Math.ceil(seen.span / wantedRuns));
    const keysPerRun = seen.listed ? least : roundUp(least, shape.keys);
    const runs = Math.max(1, Math.ceil(seen.span / keysPerRun));

    // What was given to each slot is found from the states that runs leave.
    const apart = cache.spec.mass !== undefined;
    const rows = runs * q.rows * queryHeads;
    const sumsAt = blocks * kvHeads;
    const statesAt = sumsAt + rows * valueDim;
    const exchanged = runs > 1 ? context.scratch("attention exchange", (statesAt + 2 * rows) * 4) : context.nothing;
    const sums = apart ? context.scratch("attention sums", rows * valueDim * 4) : out.memory;
    const states = apart ? context.scratch("attention states", rows * 8) : exchanged;
    context.recorder.run(
      this.#kernel(shape, {
        runs: apart ? "apart" : runs > 1 ? "joined" : "one",
        rotated: rotation !== undefined,
        listed: seen.listed,
        sunk: sinks !== undefined,
        codes: cache.spec.codes,
      }),
      {
        qOffset: q.offset,
        qStride: q.stride,
        outOffset: out.offset,
        outStride: out.stride,
        tokens: q.rows,
        runs,
        sumsAt,
        statesAt,
        start,
        kvHeads,
        group,
        keysPerRun,
        scale,
        softcap: options.softcap ?? 0,
        kOffset: k.offset,
        vOffset: v.offset,
        position: options.position ?? start,
        ...seen.params,
        ...codedPlaces(cache, layer),
      },
      {
        outs: sums,
        qs: q.memory,
        cachedKeys: cache.keys[layer],
        cachedValues: cache.values[layer],
        exchange: states,
        ks: k.memory,
        vs: v.memory,
        cosines: table?.cos ?? q.memory,
        sines: table?.sin ?? q.memory,
        sight: seen.words ?? q.memory,
        sinks: sinks ?? q.memory,
      },
      [blocks, kvHeads, runs * slices],
    );
    if (!apart) return;
    context.recorder.run(
      made(this.#mergeKernels, valueDim, () => attentionMerge(valueDim)),
      { heads: queryHeads, tokens: q.rows, runs, outOffset: out.offset, outStride: out.stride },
      { outs: out.memory, sums, states },
      [queryHeads, q.rows],
    );
    this.#addMass(q, cache, layer, options, seen, { states, runs });
  }

  #addMass(
    q: GpuActivation,
    cache: GpuKvCache,
    layer: number,
    { queryHeads, start, scale, softcap = 0 }: AttentionOptions,
    seen: Seen,
    { states, runs }: { states: GpuMemory; runs: number },
  ): void {
    const { spec, keys, mass } = cache;
    const { heads: kvHeads, key: keyDim } = spec.layers[layer];
    const { capacity, coded, ring, keyScalesAt, keyRingAt } = codedPlaces(cache, layer);
    const kernel = made(this.#massKernels, JSON.stringify([seen.listed, spec.mass, spec.codes, keyDim]), () =>
      attentionMass(seen.listed, spec.mass === "max", spec.codes, keyDim),
    );
    this.context.recorder.run(
      kernel,
      {
        qOffset: q.offset,
        qStride: q.stride,
        tokens: q.rows,
        start,
        kvHeads,
        group: queryHeads / kvHeads,
        keyDim,
        runs,
        scale,
        softcap,
        capacity,
        coded,
        ring,
        keyScalesAt,
        keyRingAt,
        ...seen.params,
      },
      { mass: mass[layer], qs: q.memory, cachedKeys: keys[layer], states, sight: seen.words ?? q.memory },
      [Math.ceil(seen.params.slots / massThreads), kvHeads],
    );
  }

  /** `Backend.rotatedAttention` of a cache of f32: of one row within attention itself, of several before it. */
  enqueueRotated(
    out: GpuActivation,
    { q, k, v, table }: RotatedRows,
    cache: GpuKvCache,
    layer: number,
    options: AttentionOptions & { position: number },
  ): void {
    const { heads, key, value } = cache.spec.layers[layer];
    const group = options.queryHeads / heads;
    // Four elements at a time, by the one workgroup that stands for a key head; and devices bind eight buffers.
    const together = q.memory === k.memory && q.memory === v.memory;
    const inOrder = options.sight?.spec.kind !== "blocks" && cache.spec.mass === undefined && valueSlices(value) === 1;
    if (q.rows === 1 && together && inOrder && key % 8 === 0 && this.#shape(cache, layer, group).queries >= group) {
      this.enqueue(out, q, cache, layer, options, { k, v, table });
      return;
    }
    const [queryPairs, keyPairs, valuePairs] = [q.cols / 2, k.cols / 2, v.cols / 2];
    this.context.recorder.run(
      ropeAppend,
      {
        queryPairs,
        keyPairs,
        valuePairs,
        half: key / 2,
        start: options.start,
        position: options.position,
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
      [elementGroups(queryPairs + keyPairs + valuePairs), q.rows],
    );
    this.enqueue(out, q, cache, layer, options);
  }

  // Every layer of every token asks for both, so neither puts a name together for what was found before.
  #shape(cache: GpuKvCache, layer: number, queryRows: number): AttentionShape {
    const spec = cache.spec.layers[layer];
    const useful = usefulQueries(queryRows);
    return made(made(this.#shapesOfLayer, spec, newShapes), useful, () => {
      const { key, value, valueInKey = false } = spec;
      return made(this.#shapes, `${key} ${value} ${valueInKey} ${useful}`, () =>
        fittingShape(
          { keyDim: key, valueDim: value, valueInKey },
          useful,
          this.context.device.limits.maxComputeWorkgroupStorageSize,
        ),
      );
    });
  }

  #kernel(shape: AttentionShape, variant: AttentionVariant): ReturnType<typeof attention> {
    const ofShape = made(this.#kernels, shape, newKernels);
    const { runs = "one", rotated, listed, sunk, codes } = variant;
    const flags = runKinds.indexOf(runs) + (rotated ? 4 : 0) + (listed ? 8 : 0) + (sunk ? 16 : 0);
    const name = codes === undefined ? flags : `${flags} ${codesName(codes)}`;
    return made(ofShape, name, () => attention(shape, variant));
  }
}

const newShapes = () => new Map<number, AttentionShape>();
const newKernels = () => new Map<number | string, ReturnType<typeof attention>>();

/** Few shapes, so that few kernels are compiled. */
const queryCounts = [1, 4, 16];
const keyCounts = [32, 16, 8];

const usefulQueries = (rows: number) => queryCounts.find((queries) => queries >= rows) ?? queryCounts.at(-1)!;

/** The most keys, then the most query rows per workgroup, that are of use and fit its memory. */
function fittingShape(
  widths: Pick<AttentionShape, "keyDim" | "valueDim" | "valueInKey">,
  useful: number,
  limitBytes: number,
): AttentionShape {
  for (const keys of keyCounts) {
    for (const queries of queryCounts.toReversed()) {
      const shape = { ...widths, queries, keys };
      if (queries <= useful && queries * 4 >= useful && attentionBytes(shape) <= limitBytes) return shape;
    }
  }
  throw new DeviceError(
    `attention over keys of ${widths.keyDim} and values of ${widths.valueDim} does not fit the workgroup memory of this GPU`,
  );
}

const roundUp = (n: number, multiple: number): number => Math.ceil(n / multiple) * multiple;

import type { AttentionOptions } from "../backend.js";
import type { Context } from "./context.js";
import { made } from "./made.js";
import type { Seen } from "./seen.js";
import type { GpuActivation, GpuKvCache, GpuVector } from "./storage.js";
import { type AttentionTile, attentionTensor, attentionTensorBytes, tensorQueries } from "./wgsl/attentionTensor.js";

/** With fewer rows matrix units multiply mostly nothing, with fewer workgroups too much of a GPU has nothing to do. */
const leastRows = 32;
const leastWorkgroups = 32;

/** Attention of many rows on the matrix units of a device that has them. */
export class TensorAttention {
  readonly #kernels = new Map<string, ReturnType<typeof attentionTensor>>();
  /** Whether it is used; see `chooseAttention`. */
  isOn = false;

  constructor(readonly context: Context) {}

  /** @returns false for what it is not made for; nothing is enqueued then */
  enqueue(
    out: GpuActivation,
    q: GpuActivation,
    { spec, keys, values }: GpuKvCache,
    layer: number,
    { queryHeads, start, scale, softcap = 0, sinks }: AttentionOptions,
    { params: { window, causal } }: Seen,
  ): boolean {
    const { tensorShape, limits } = this.context.device;
    if (!this.isOn || tensorShape === undefined) return false;
    const { heads: kvHeads, key: keyDim, value: valueDim, valueInKey = false } = spec.layers[layer];
    const group = queryHeads / kvHeads;
    const blocks = Math.ceil((q.rows * group) / tensorQueries);
    if (valueInKey || q.rows * group < leastRows || blocks * kvHeads < leastWorkgroups) return false;
    const tile = fittingTile(keyDim, valueDim, limits.maxComputeWorkgroupStorageSize);
    if (tile === undefined) return false;
    const sunk = sinks !== undefined;
    this.context.recorder.run(
      made(this.#kernels, `${keyDim} ${valueDim} ${sunk}`, () => attentionTensor(tensorShape, tile, sunk)),
      {
        qOffset: q.offset,
        qStride: q.stride,
        outOffset: out.offset,
        outStride: out.stride,
        tokens: q.rows,
        start,
        window,
        causal,
        kvHeads,
        group,
        scale,
        softcap,
      },
      {
        outs: out.memory,
        qs: q.memory,
        cachedKeys: keys[layer],
        cachedValues: values[layer],
        sinks: (sinks as GpuVector | undefined)?.memory ?? q.memory,
      },
      [blocks, kvHeads],
    );
    return true;
  }
}

/** The most keys that fit the memory of a workgroup; undefined where none do, or for widths that matrix units do not take. */
function fittingTile(keyDim: number, valueDim: number, limitBytes: number): AttentionTile | undefined {
  if (keyDim % 16 !== 0 || valueDim % 64 !== 0) return undefined;
  return [64, 32].map((keys) => ({ keyDim, valueDim, keys })).find((tile) => attentionTensorBytes(tile) <= limitBytes);
}

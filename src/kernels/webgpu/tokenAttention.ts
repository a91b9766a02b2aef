import type { AttentionOptions } from "../backend.js";
import type { KvLayer } from "../kv.js";
import type { Context } from "./context.js";
import { made } from "./made.js";
import type { Seen } from "./seen.js";
import type { GpuActivation, GpuKvCache, GpuRopeTable, GpuVector } from "./storage.js";
import { minimumRun, wholeRounds } from "./wgsl/attentionRuns.js";
import {
  attentionToken,
  attentionTokenBytes,
  keysAtOnce,
  type TokenShape,
  tokenRegisters,
} from "./wgsl/attentionToken.js";

/** More fours of numbers than a thread has registers for, together with what it does with them. */
const mostRegisters = 36;

/** How a shape is run, and below how many workgroups the keys are cut into runs. */
type Tuning = Pick<TokenShape, "threads" | "unroll"> & { workgroups: number };

type TunedShape = TokenShape & Tuning;

/** Best first, on an NVIDIA H200; see bench/webgpu/README.md. */
const tunings: readonly Tuning[] = [
  { threads: 512, unroll: 4, workgroups: 128 },
  { threads: 128, unroll: 8, workgroups: 256 },
  { threads: 128, unroll: 4, workgroups: 256 },
  { threads: 128, unroll: 2, workgroups: 256 },
];

/** Unrolled code takes a software device seconds to compile. */
const softwareTunings: readonly Tuning[] = [{ threads: 32, unroll: 2, workgroups: 8 }];

/** k and v that are still to be rotated and cached, and what rotates them; of a token they lie where q does. */
export interface TokenRotation {
  readonly k: GpuActivation;
  readonly v: GpuActivation;
  readonly table: GpuRopeTable;
}

/** Attention of one token by the subgroups of a device on which all are of one size. */
export class TokenAttention {
  readonly #shapes = new WeakMap<KvLayer, Map<number, TunedShape | "none">>();
  readonly #kernels = new Map<TunedShape, Map<number, ReturnType<typeof attentionToken>>>();
  /** Whether it is used; see `chooseAttention`. */
  isOn = false;

  constructor(readonly context: Context) {}

  /** @returns false for what it is not made for; nothing is enqueued then */
  enqueue(
    out: GpuActivation,
    q: GpuActivation,
    { spec, keys, values }: GpuKvCache,
    layer: number,
    { queryHeads, start, scale, softcap = 0, sinks, position = start }: AttentionOptions & { position?: number },
    { span, params: { window } }: Seen,
    rotation?: TokenRotation,
  ): boolean {
    if (!this.isOn || q.rows !== 1) return false;
    const { context } = this;
    const kvLayer = spec.layers[layer];
    const { heads: kvHeads, value: valueDim } = kvLayer;
    const shape = this.#shape(kvLayer, queryHeads / kvHeads);
    if (shape === "none") return false;
    const wantedRuns = Math.ceil(shape.workgroups / kvHeads);
    const keysPerRun = Math.max(minimumRun, wholeRounds(span, wantedRuns, keysAtOnce(shape)));
    const runs = Math.ceil(span / keysPerRun);
    const sumsAt = kvHeads;
    const statesAt = sumsAt + runs * queryHeads * valueDim;
    const { k, v, table } = rotation ?? { k: q, v: q };
    context.recorder.run(
      this.#kernel(shape, runs > 1, rotation !== undefined, sinks !== undefined),
      {
        qOffset: q.offset,
        outOffset: out.offset,
        kOffset: k.offset,
        vOffset: v.offset,
        runs,
        sumsAt,
        statesAt,
        start,
        position,
        window,
        kvHeads,
        keysPerRun,
        scale,
        softcap,
      },
      {
        outs: out.memory,
        qs: q.memory,
        cachedKeys: keys[layer],
        cachedValues: values[layer],
        exchange:
          runs > 1 ? context.scratch("attention exchange", (statesAt + 2 * runs * queryHeads) * 4) : context.nothing,
        ks: k.memory,
        vs: v.memory,
        cosines: table?.cos ?? q.memory,
        sines: table?.sin ?? q.memory,
        sinks: (sinks as GpuVector | undefined)?.memory ?? q.memory,
      },
      [kvHeads, runs],
    );
    return true;
  }

  // Every layer of every token asks for both, so neither puts a name together for what was found before.
  #shape(layer: KvLayer, group: number): TunedShape | "none" {
    return made(
      made(this.#shapes, layer, () => new Map<number, TunedShape | "none">()),
      group,
      () => this.#fitting(layer, group) ?? "none",
    );
  }

  #fitting({ key: keyDim, value: valueDim, valueInKey }: KvLayer, group: number): TunedShape | undefined {
    const { isSoftware, subgroupSize: lanes, limits } = this.context.device;
    if (lanes === undefined || valueInKey || keyDim % 8 !== 0 || valueDim % 4 !== 0) return undefined;
    const all = isSoftware ? softwareTunings : tunings;
    return all
      .map((tuning) => ({ keyDim, valueDim, group, lanes, ...tuning }))
      .find(
        (shape) =>
          tokenRegisters(shape) <= mostRegisters &&
          shape.threads <= limits.maxComputeInvocationsPerWorkgroup &&
          attentionTokenBytes(shape) <= limits.maxComputeWorkgroupStorageSize,
      );
  }

  #kernel(shape: TunedShape, joined: boolean, rotated: boolean, sunk: boolean): ReturnType<typeof attentionToken> {
    const flags = (joined ? 1 : 0) + (rotated ? 2 : 0) + (sunk ? 4 : 0);
    return made(
      made(this.#kernels, shape, () => new Map<number, ReturnType<typeof attentionToken>>()),
      flags,
      () => attentionToken(shape, { joined, rotated, sunk }),
    );
  }
}

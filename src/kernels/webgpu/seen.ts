import { blockMaskOffsets, slotsOfBlock } from "../sight.js";
import type { GpuMemory } from "./device.js";
import type { GpuActivation, GpuSight } from "./storage.js";

/** "All positions", small enough that adding a position does not wrap. */
const noWindow = 0x7fffffff;

/** What a pass sees, as kernels take it. */
export interface Seen {
  /** Whether the block mask in `words` says what is seen. */
  readonly listed: boolean;
  /** Most steps that rows of one workgroup walk, and the slots of a step. */
  readonly span: number;
  readonly step: number;
  readonly params: {
    window: number;
    causal: number;
    slots: number;
    listsAt: number;
    tables: number;
    blocksAt: number;
    bitsAt: number;
  };
  readonly words?: GpuMemory;
}

/** What rows from slot `start` on see. */
export function seenBy(sight: GpuSight | undefined, { rows }: GpuActivation, start: number): Seen {
  const { spec = { kind: "causal" } as const, words } = sight ?? {};
  const inOrder = { slots: start + rows, listsAt: 0, tables: 0, blocksAt: 0, bitsAt: 0 };
  if (spec.kind === "bidirectional") {
    return { listed: false, span: start + rows, step: 1, params: { window: noWindow, causal: 0, ...inOrder } };
  }
  if (spec.kind === "causal") {
    const window = Math.min(spec.window ?? noWindow, noWindow);
    const span = Math.min(start + rows, window + rows);
    return { listed: false, span, step: 1, params: { window, causal: 1, ...inOrder } };
  }
  const lengths = spec.first.subarray(1).map((at, i) => at - spec.first[i]);
  const { slots, tables } = spec;
  const params = { window: noWindow, causal: 1, slots, tables, ...blockMaskOffsets(spec) };
  return { listed: true, span: Math.max(...lengths), step: slotsOfBlock, params, words };
}

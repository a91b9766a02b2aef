import type { BackendCounters } from "../backend.js";
import type { ExpertLinearOptions, RoutedSlots, RouteOptions, Routing } from "../experts.js";
import type { ExpertList } from "../hostExperts.js";
import { type HostRouting, noSlot } from "../routing.js";
import type { Context } from "./context.js";
import type { GpuMemory } from "./device.js";
import type { GpuMatrix } from "./matrix.js";
import { countPart, fillTable, slicing, table, tileCount } from "./productParts.js";
import type { GpuActivation } from "./storage.js";
import { elementThreads } from "./wgsl/elementwise.js";
import {
  addExpertBias as addBiasKernel,
  addExperts as addKernel,
  gatherRows as gatherKernel,
  mostExperts,
  route,
} from "./wgsl/experts.js";
import { type expertMatvec, matvecParts, maxTickets } from "./wgsl/matvec.js";
import { notCounted } from "./wgsl/matvecInputs.js";

export { mostExperts };

/** A routing that only the GPU knows: the slots of one row, the largest weight first. */
export interface DeviceRouting extends Routing {
  readonly onDevice: true;
}

export const isOnDevice = (routing: Routing): routing is DeviceRouting => "onDevice" in routing;

export interface ExpertKernels {
  readonly dense: ReturnType<typeof expertMatvec>;
  readonly sparse: ReturnType<typeof expertMatvec>;
}

/** Matrices of experts of which kernels can find any by its number, if they have `chosen`. */
export interface GpuExperts extends ExpertList {
  readonly chosen?: { readonly kernels: ExpertKernels; readonly first: GpuMatrix; readonly expertUnits: number };
  /** f32 [experts, rows] */
  readonly bias?: GpuMemory;
}

/** The matrices of a stack of all parts of all experts one by one. */
export function splitExperts(whole: GpuMatrix, experts: number): GpuMatrix[] {
  const perExpert = whole.parts.length / experts;
  return Array.from({ length: experts }, (_, expert) => {
    const first = expert * perExpert;
    const { rowStart } = whole.parts[first];
    const parts = whole.parts
      .slice(first, first + perExpert)
      .map((part) => ({ ...part, rowStart: part.rowStart - rowStart }));
    const chunks = whole.chunks
      .map(({ memory, runs }) => ({
        memory,
        runs: runs
          .filter(({ part }) => part >= first && part < first + perExpert)
          .map((run) => ({ ...run, part: run.part - first })),
      }))
      .filter(({ runs }) => runs.length > 0);
    const rows = parts.reduce((sum, part) => sum + part.rows, 0);
    return { ...whole, rows, parts, chunks, byteLength: whole.byteLength / experts };
  });
}

/** How kernels find a matrix by the number of its expert; undefined where they cannot. */
export function chosenAmong(
  matrices: readonly GpuMatrix[],
  kernels: ExpertKernels | undefined,
): GpuExperts["chosen"] | undefined {
  const [first] = matrices;
  const [chunk] = first.chunks;
  const together = matrices.every(({ chunks }) => chunks.length === 1 && chunks[0].memory === chunk.memory);
  const few = matrices.length <= mostExperts && matrices.length * tileCount(chunk.runs) <= maxTickets;
  if (kernels === undefined || !together || !few || chunk.runs.length > matvecParts) return undefined;
  const unitsBefore = ({ chunks: [{ runs }] }: GpuMatrix) => runs[0].unitBase;
  const expertUnits = matrices.length === 1 ? 0 : unitsBefore(matrices[1]) - unitsBefore(first);
  return { kernels, first, expertUnits };
}

/** A routing that was decided elsewhere lies beside the one that was routed: both are used in turns. */
const routingBuffer = (context: Context, routing: Routing) => {
  const name = "elsewhere" in routing ? "routing elsewhere" : "routing";
  return context.scratch(name, 8 * Math.max(2, routing.slotCount + routing.rows * routing.perRow));
};

/** Chooses for one row. @param biases f32 [at least options.experts] where the choice is not by logits */
export function routeOnDevice(
  context: Context,
  logits: GpuActivation,
  options: RouteOptions,
  biases: GpuMemory | undefined,
): DeviceRouting {
  const { experts, perRow, score, groups, normalise, uniform, factor = 1 } = options;
  const routing: DeviceRouting = { rows: 1, perRow, slotCount: perRow, onDevice: true };
  context.recorder.run(
    route,
    {
      experts,
      perRow,
      sigmoid: score === "sigmoid" ? 1 : 0,
      byScore: biases === undefined ? 0 : 1,
      groups: groups?.count ?? 0,
      keptGroups: groups?.kept ?? 0,
      normalise: normalise ? 1 : 0,
      uniform: uniform ? 1 : 0,
      factor,
      offset: logits.offset,
    },
    { routing: routingBuffer(context, routing), logits: logits.memory, biases: biases ?? logits.memory },
    [1],
  );
  return routing;
}

/** Gives the GPU what the host has chosen. */
export function upload(context: Context, routing: HostRouting): void {
  const { slots, slotsOfRows } = routing;
  const weights = Float32Array.from(slotsOfRows, (slot) => (slot === noSlot ? 0 : slots.weights[slot]));
  const words = [slots.experts, slots.rows, slotsOfRows, new Uint32Array(weights.buffer)].flatMap((part) => [...part]);
  const { buffer } = routingBuffer(context, routing);
  // Writes go to the queue at once: what was recorded before must be there first.
  context.recorder.submit();
  context.device.gpu.queue.writeBuffer(buffer, 0, Uint32Array.from(words));
}

export async function readSlots(context: Context, routing: Routing): Promise<RoutedSlots> {
  const { slotCount: slots } = routing;
  const bytes = await context.recorder.read(routingBuffer(context, routing), 0, slots * 16);
  return {
    experts: new Uint32Array(bytes, 0, slots),
    rows: new Uint32Array(bytes, slots * 4, slots),
    weights: new Float32Array(bytes, slots * 12, slots),
  };
}

export function gatherRows(context: Context, out: GpuActivation, x: GpuActivation, routing: Routing): void {
  const { slotCount: slots } = routing;
  context.recorder.run(
    gatherKernel,
    { cols: x.cols, slots, outOffset: out.offset, outStride: out.stride, xOffset: x.offset, xStride: x.stride },
    { outs: out.memory, xs: x.memory, routing: routingBuffer(context, routing) },
    [Math.ceil(x.cols / elementThreads), slots],
  );
}

export function addExperts(context: Context, out: GpuActivation, x: GpuActivation, routing: Routing): void {
  context.recorder.run(
    addKernel,
    {
      cols: x.cols,
      slots: routing.slotCount,
      rows: routing.rows,
      perRow: routing.perRow,
      outOffset: out.offset,
      outStride: out.stride,
      xOffset: x.offset,
      xStride: x.stride,
    },
    { outs: out.memory, xs: x.memory, routing: routingBuffer(context, routing) },
    [Math.ceil(x.cols / elementThreads), routing.rows],
  );
}

/** out[s] += bias of the expert of s */
export function addBias(context: Context, out: GpuActivation, biases: GpuMemory, routing: Routing): void {
  context.recorder.run(
    addBiasKernel,
    { cols: out.cols, outOffset: out.offset, outStride: out.stride },
    { outs: out.memory, biases, routing: routingBuffer(context, routing) },
    [Math.ceil(out.cols / elementThreads), routing.slotCount],
  );
}

/** `Backend.expertLinear` for a routing that only the GPU knows: all slots in one dispatch. */
export function multiplyChosen(
  context: Context,
  out: GpuActivation,
  x: GpuActivation,
  { experts, chosen }: GpuExperts,
  routing: DeviceRouting,
  { from, thresholds }: ExpertLinearOptions,
  counters: BackendCounters,
): void {
  const { kernels, first, expertUnits } = chosen!;
  const { recorder } = context;
  const slots = routing.perRow;
  const { groupsPerSlice, slices } = slicing(context, first, thresholds && "sparse", slots);
  const exchange = context.scratch("exchange", (maxTickets + slots * slices * first.rows) * 4);
  recorder.makeRoom(1, first.parts.length);
  const [{ memory, runs }] = first.chunks;
  const tickets = fillTable(
    first,
    runs,
    (run) => run.tiles,
    ({ part }) => [
      thresholds?.[part] ?? 0,
      thresholds === undefined ? notCounted : countPart(context, first, part, counters, slots),
    ],
  );
  if (thresholds === undefined) counters.weightBytesRead += slots * first.byteLength;
  recorder.run(
    thresholds === undefined ? kernels.dense : kernels.sparse,
    {
      xOffset: x.offset,
      xStride: from === "rows" ? 0 : x.stride,
      cols: first.cols,
      groups: first.groups,
      groupsPerSlice,
      slices,
      parts: runs.length,
      outOffset: out.offset,
      outStride: out.stride,
      exchangeStride: first.rows,
      accumulate: 0,
      experts,
      expertUnits,
      tickets,
    },
    {
      outs: out.memory,
      xs: x.memory,
      units: memory,
      counters: recorder.counters,
      exchange,
      routing: routingBuffer(context, routing),
    },
    [tickets, slices, slots],
    table,
  );
}

import type { LinearSpec, ModelSpec } from "../../arch/index.js";
import { breathe, type JobOptions, Stage, UsageError } from "../../core/index.js";
import type { ByteSink } from "../../io/index.js";
import { packedRowsOf } from "../../kernels/index.js";
import { padded, type WeightFormatId, weightFormats } from "../../pack/index.js";
import { dtypeBytes, fromFloat32, toFloat32 } from "../../tensor/index.js";
import { storedMap } from "../forms.js";
import { type TensorSource, tensorRows } from "../tensorRows.js";
import { type OffloadShape, type OffloadStream, placeOffload } from "./placement.js";

const unheard = { onRead() {}, onSuspect() {} };

/** A matrix of the checkpoint in memory: f32 rows, and the scales of its grid where it lies on one. */
interface Held {
  readonly rows: number;
  readonly cols: number;
  /** Entries [first, end) of row `r`. */
  readonly read: (r: number, first: number, end: number, into?: Float32Array<ArrayBuffer>) => Float32Array;
  readonly scales: Float32Array | undefined;
}

/** Reads a map whole, as it is stored: the most that is in memory is one stack of a layer. */
async function hold(source: TensorSource, { weight, rows, cols }: LinearSpec): Promise<Held> {
  const from = tensorRows(source, weight, rows, unheard);
  const rowBytes = cols * dtypeBytes[from.dtype];
  const bytes = new Uint8Array(rows * rowBytes);
  await from.read(0, rows, bytes);
  const groups = Math.ceil(cols / 32);
  const scales = from.scales && new Float32Array(rows * groups);
  if (scales !== undefined) await from.scales?.(0, rows, scales);
  const size = dtypeBytes[from.dtype];
  const read: Held["read"] = (r, first, end, into) =>
    toFloat32(from.dtype, bytes.subarray(r * rowBytes + first * size, r * rowBytes + end * size), into);
  return { rows, cols, read, scales };
}

/** The packed bytes of one group of 32 inputs of a stack: scales, then columns. */
function packGroup(parts: readonly Held[], group: number, weights: WeightFormatId): Uint8Array {
  const rows = packedRowsOf(parts);
  const slab = new Float32Array(rows * 32);
  const grid = parts.every(({ scales }) => scales !== undefined) ? new Float32Array(rows) : undefined;
  let at = 0;
  for (const part of parts) {
    const groups = Math.ceil(part.cols / 32);
    for (let r = 0; r < part.rows; r++) {
      const [first, end] = [group * 32, Math.min(part.cols, group * 32 + 32)];
      part.read(r, first, end, slab.subarray((at + r) * 32, (at + r) * 32 + end - first));
      if (grid !== undefined) grid[at + r] = part.scales![r * groups + group];
    }
    at += padded(part.rows);
  }
  return weightFormats[weights].pack(slab, rows, 32, grid);
}

/**
 * Writes the bundles of a model, as `placeOffload` places them.
 * @param countsOf how often each unit of a stream was used, where that is known
 * @throws UsageError for a model that cannot be offloaded so
 */
export async function writeOffloaded(
  source: TensorSource,
  spec: ModelSpec,
  shape: OffloadShape,
  sink: Pick<ByteSink, "write">,
  countsOf: (stream: OffloadStream) => Uint32Array | undefined,
  { signal, onProgress }: JobOptions = {},
): Promise<{ byteLength: number }> {
  const { streams, byteLength } = placeOffload(spec, shape);
  const { weights } = shape;
  const stage = new Stage("write bundles", byteLength, "bytes", onProgress);
  let written = 0;
  const write = async (bytes: Uint8Array): Promise<void> => {
    await breathe(signal);
    await sink.write(bytes);
    written += bytes.byteLength;
    stage.advance(bytes.byteLength);
  };
  const writeAt = async (at: number, bytes: Uint8Array): Promise<void> => {
    if (at > written) await write(new Uint8Array(at - written));
    await write(bytes);
  };
  for (const stream of streams) {
    const { mlp, of, units, parts, scales, counts } = stream;
    const maps = of === "first" ? mlp.first.maps.map(({ map }) => map) : mlp.down.maps.map(({ map }) => map);
    for (const map of [...maps, ...(of === "neurons" ? [mlp.gate, ...(mlp.up ? [mlp.up] : [])] : [])]) {
      const { lowRank, factors } = storedMap(map, source.tensors);
      if (lowRank === undefined && factors === undefined) continue;
      throw new UsageError(`${map.weight.tensor} as factors cannot be offloaded`);
    }
    const held: Held[] = [];
    for (const map of maps) held.push(await hold(source, map));
    const gate = of === "neurons" ? await hold(source, mlp.gate) : undefined;
    const up = of === "neurons" && mlp.up ? await hold(source, mlp.up) : undefined;
    const packedRows = packedRowsOf(maps);
    const column = weightFormats[weights].columnBytes(packedRows);
    const groupScales = weightFormats[weights].groupScaleBytes(packedRows);
    const allScales = new Uint8Array(scales.bytes);
    const rowOf = ({ read, cols }: Held, unit: number) =>
      fromFloat32(weights === "f32" ? "F32" : "BF16", read(unit, 0, cols));
    const bytesOf = (part: (typeof parts)[number], unit: number, group: Uint8Array | undefined): Uint8Array => {
      if (part.name === "gate") return rowOf(gate!, unit);
      if (part.name === "up") return rowOf(up!, unit);
      return group!.subarray(groupScales + (unit % 32) * column).subarray(0, column);
    };
    // Parts that lie together are written together.
    const runs = parts.some(({ stride, bytes }) => stride !== bytes) ? [parts] : parts.map((part) => [part]);
    for (const run of runs) {
      const stride = run.reduce((sum, { bytes }) => sum + bytes, 0);
      const packs = run.some(({ name }) => name === "down" || name === "columns");
      for (let first = 0; first < units; first += 32) {
        const group = packs ? packGroup(held, first / 32, weights) : undefined;
        if (group !== undefined) allScales.set(group.subarray(0, groupScales), (first / 32) * groupScales);
        const count = Math.min(32, units - first);
        const bundle = new Uint8Array(count * stride);
        for (let u = 0; u < count; u++) {
          let at = u * stride;
          for (const part of run) {
            bundle.set(bytesOf(part, first + u, group), at);
            at += part.bytes;
          }
        }
        await writeAt(run[0].at + first * stride, bundle);
      }
    }
    await writeAt(scales.at, allScales);
    const used = countsOf(stream) ?? new Uint32Array(units);
    await writeAt(counts, new Uint8Array(used.buffer, used.byteOffset, used.byteLength));
  }
  return { byteLength };
}

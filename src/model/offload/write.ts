import type { ModelSpec } from "../../arch/index.js";
import type { JobOptions } from "../../core/index.js";
import type { ByteSink } from "../../io/index.js";
import { packedRowsOf } from "../../kernels/index.js";
import { weightFormats } from "../../pack/index.js";
import type { TensorSource } from "../tensorRows.js";
import { bundleWriter } from "./bundleWriter.js";
import { checkWhole, type Held, hold, packGroup, packUnits } from "./packed.js";
import { type OffloadShape, type OffloadStream, placeOffload, type UnitPart } from "./placement.js";
import { writeExperts } from "./writeExperts.js";

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
  job: JobOptions = {},
): Promise<{ byteLength: number }> {
  if (shape.layout === "experts") return writeExperts(source, spec, shape.weights, sink, job);
  const { streams, byteLength } = placeOffload(spec, shape);
  const { weights } = shape;
  const writeAt = bundleWriter(sink, "bundles", byteLength, job);
  for (const stream of streams) {
    const { mlp, of, units, parts, scales, counts } = stream;
    const maps = of === "first" ? mlp.first.maps.map(({ map }) => map) : mlp.down.maps.map(({ map }) => map);
    checkWhole(source, [...maps, ...(of === "neurons" ? [mlp.gate, ...(mlp.up ? [mlp.up] : [])] : [])]);
    const held: Held[] = [];
    for (const map of maps) held.push(await hold(source, map));
    const gate = of === "neurons" ? await hold(source, mlp.gate) : undefined;
    const up = of === "neurons" && mlp.up ? await hold(source, mlp.up) : undefined;
    const packedRows = packedRowsOf(maps);
    const column = weightFormats[weights].columnBytes(packedRows);
    const groupScales = weightFormats[weights].groupScaleBytes(packedRows);
    const allScales = new Uint8Array(scales.bytes);
    const heldRows: Partial<Record<UnitPart["name"], Held>> = { gate, up };
    // Parts that lie together are written together.
    const runs = parts.some(({ stride, bytes }) => stride !== bytes) ? [parts] : parts.map((part) => [part]);
    for (const run of runs) {
      const stride = run.reduce((sum, { bytes }) => sum + bytes, 0);
      const packs = run.some(({ name }) => name === "down" || name === "columns");
      for (let first = 0; first < units; first += 32) {
        const group = packs ? packGroup(held, first / 32, weights) : undefined;
        if (group !== undefined) allScales.set(group.subarray(0, groupScales), (first / 32) * groupScales);
        const count = Math.min(32, units - first);
        const rows = new Map(
          run.flatMap(({ name }) => {
            const from = heldRows[name];
            return from === undefined ? [] : [[name, packUnits(from, first, count, weights)] as const];
          }),
        );
        const bundle = new Uint8Array(count * stride);
        for (let u = 0; u < count; u++) {
          let at = u * stride;
          for (const part of run) {
            const own = rows.get(part.name);
            if (own !== undefined) bundle.set(own.subarray(u * part.bytes, (u + 1) * part.bytes), at);
            else bundle.set(group!.subarray(groupScales + u * column).subarray(0, column), at);
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

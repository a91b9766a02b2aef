import type { LinearStep, ModelSpec } from "../../arch/index.js";
import type { JobOptions } from "../../core/index.js";
import type { ByteSink } from "../../io/index.js";
import type { WeightFormatId } from "../../pack/index.js";
import type { TensorSource } from "../tensorRows.js";
import { bundleWriter } from "./bundleWriter.js";
import { placeExperts } from "./expertPlacement.js";
import { checkWhole, hold, packGroup } from "./packed.js";

/**
 * Writes the experts of a model, as `placeExperts` places them: the most that is in memory is one expert.
 * @throws UsageError for a model without experts, or with some that are stored as factors
 */
export async function writeExperts(
  source: TensorSource,
  spec: ModelSpec,
  weights: WeightFormatId,
  sink: Pick<ByteSink, "write">,
  job: JobOptions = {},
): Promise<{ byteLength: number }> {
  const { streams, byteLength } = placeExperts(spec, weights);
  const writeAt = bundleWriter(sink, "experts", byteLength, job);
  for (const { mixture, at, bytes, parts } of streams) {
    for (const [e, expert] of mixture.experts.entries()) {
      const bundle = new Uint8Array(bytes);
      const linear = expert.steps.filter((step): step is LinearStep => step.do === "linear");
      for (const [p, { within }] of parts.entries()) {
        const maps = linear[p].maps.map(({ map }) => map);
        checkWhole(source, maps);
        const held = [];
        for (const map of maps) held.push(await hold(source, map));
        let to = within;
        for (let group = 0; group < Math.ceil(maps[0].cols / 32); group++) {
          const packed = packGroup(held, group, weights);
          bundle.set(packed, to);
          to += packed.byteLength;
        }
      }
      await writeAt(at + e * bytes, bundle);
    }
  }
  return { byteLength };
}

import type { LinearStep, ModelSpec } from "../../arch/index.js";
import { breathe, type JobOptions, Stage } from "../../core/index.js";
import type { ByteSink } from "../../io/index.js";
import type { WeightFormatId } from "../../pack/index.js";
import type { TensorSource } from "../tensorRows.js";
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
  { signal, onProgress }: JobOptions = {},
): Promise<{ byteLength: number }> {
  const { streams, byteLength } = placeExperts(spec, weights);
  const stage = new Stage("write experts", byteLength, "bytes", onProgress);
  let written = 0;
  const write = async (bytes: Uint8Array): Promise<void> => {
    await breathe(signal);
    await sink.write(bytes);
    written += bytes.byteLength;
    stage.advance(bytes.byteLength);
  };
  for (const { mixture, at, bytes, parts } of streams) {
    if (at > written) await write(new Uint8Array(at - written));
    for (const expert of mixture.experts) {
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
      await write(bundle);
    }
  }
  return { byteLength };
}

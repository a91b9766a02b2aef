import { UsageError } from "../../core/index.js";
import type { Activation } from "../../kernels/index.js";
import type { Sampler } from "../samplers.js";
import type { Sequence } from "../sequence.js";
import type { Draft, Drafter, Proposal } from "./draft.js";
import { pickFrom } from "./pickFrom.js";

/**
 * The target's own first layers propose, through its final norm and output matrix (LayerSkip, 2404.16710). What they computed
 * is kept: to verify, only the layers behind them run. It pays where early layers often know the token, as in models
 * that were trained for it.
 * @param layers how many of them
 */
export const layersDraft = (layers: number): Draft => ({
  text: `layers=${layers}`,
  open(target, sampler) {
    const all = target.model.config.layers;
    if (!Number.isSafeInteger(layers) || layers < 1 || layers >= all) {
      throw new UsageError(
        `a draft by the first ${layers} layers; the model has ${all}, so from 1 to ${all - 1} can draft`,
      );
    }
    return new LayersDrafter(target, sampler, layers);
  },
});

class LayersDrafter implements Drafter {
  constructor(
    readonly target: Sequence,
    readonly sampler: Sampler,
    readonly layers: number,
  ) {}

  async propose(last: number, most: number): Promise<Proposal> {
    const { target, sampler, layers } = this;
    const { model, tokens } = target;
    const { backend } = model;
    const ids: number[] = [];
    const laws: Float64Array[] = [];
    const rows: Activation[] = [];
    try {
      for (let newest = last; ; newest = ids[ids.length - 1]) {
        const x = model.embed(Uint32Array.of(newest), tokens.length + ids.length);
        rows.push(x);
        await target.runBlocks(x, { from: 0, to: layers, after: ids.length });
        if (ids.length === most) break;
        const { id, law } = await pickFrom(model, model.head(x), sampler, [...tokens, last, ...ids]);
        ids.push(id);
        if (law !== undefined) laws.push(law);
      }
      const stream = backend.allocate(rows.length, model.config.hiddenSize);
      backend.write(stream, new Float32Array(rows.length * model.config.hiddenSize));
      for (const [r, x] of rows.entries()) backend.add(stream.rowRange(r, 1), x);
      return { ids, laws: sampler.greedy ? undefined : laws, begun: { stream, layers } };
    } finally {
      for (const x of rows) backend.release(x);
    }
  }

  [Symbol.dispose](): void {}
}

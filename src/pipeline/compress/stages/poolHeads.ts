import { findStep } from "../../../arch/index.js";
import { poolHeads as pooled } from "../../../compress/internal.js";
import type { StageHandler } from "./stage.js";

/** Fewer key and value heads, each the mean of several. */
export const poolHeads: StageHandler<"poolHeads"> = {
  approximates: false,
  needs: async () => [],
  async apply({ stage, block, breathe }) {
    const { sizes, matrices, vectors } = block;
    const { k, v } = findStep(block.spec, "attend")!;
    const keysAndValues = [...matrices.values()].filter(({ place: { map, step } }) =>
      step.maps.some((made) => made.map === map && (made.into === k || made.into === v)),
    );
    for (const matrix of keysAndValues) {
      await breathe();
      matrix.weight = pooled(matrix.weight, sizes.kvHeads, stage.kvHeads);
      matrix.rows = matrix.weight.length / matrix.cols;
      matrix.mask = undefined;
      const { bias: ref } = matrix.place.map;
      if (ref === undefined) continue;
      const bias = vectors.get(ref)!;
      bias.values = pooled(bias.values, sizes.kvHeads, stage.kvHeads);
    }
    sizes.kvHeads = stage.kvHeads;
  },
};

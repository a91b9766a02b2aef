import { poolHeads as pooled } from "../../../compress/index.js";
import type { StageHandler } from "./stage.js";

/** Fewer key and value heads, each the mean of several. */
export const poolHeads: StageHandler<"poolHeads"> = {
  approximates: false,
  needs: async () => [],
  async apply({ stage, block, breathe }) {
    const { sizes, matrices, vectors } = block;
    for (const projection of ["k_proj", "v_proj"] as const) {
      await breathe();
      const matrix = matrices.get(projection)!;
      matrix.weight = pooled(matrix.weight, sizes.kvHeads, stage.kvHeads);
      matrix.rows = matrix.weight.length / matrix.cols;
      matrix.mask = undefined;
      if (matrix.biasName === undefined) continue;
      const bias = vectors.get(matrix.biasName)!;
      bias.values = pooled(bias.values, sizes.kvHeads, stage.kvHeads);
    }
    sizes.kvHeads = stage.kvHeads;
  },
};

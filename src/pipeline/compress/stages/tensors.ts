import { tensorMethods } from "../../../compress/index.js";
import { factorMatrix } from "../../../tensor/internal.js";
import { measureChange, type StageHandler } from "./stage.js";

/** Factors of higher order in place of matrices: trains, Tucker's, hybrids. */
export const tensors: StageHandler<"tensors"> = {
  approximates: true,
  needs: async () => [],
  async apply(context) {
    const { stage, options, targets } = context;
    const method = tensorMethods[stage.method];
    for (const matrix of targets) {
      await context.breathe();
      const { rows, cols } = matrix;
      const planned = method.plan({ rows, cols }, options, stage);
      const fitted = method.fit(matrix.weight, { rows, cols }, planned, stage.tolerance, options);
      const product = factorMatrix(fitted.factors, { rows, cols }, fitted.parts);
      measureChange(context, matrix, product);
      matrix.factors = fitted;
      matrix.weight = product;
    }
  },
};

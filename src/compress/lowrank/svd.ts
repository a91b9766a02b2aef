import * as z from "zod/mini";
import type { LowRankMethod } from "../contract.js";
import { spectrumOf } from "./spectrum.js";

const options = z.strictObject({});

/** Truncated singular value decomposition: of all matrices of that rank the nearest to W (Eckart, Young). */
export const method: LowRankMethod<z.output<typeof options>> = {
  id: "svd",
  title: "SVD",
  paper: "Eckart, Young 1936, Psychometrika 1(3)",
  options,
  needs: () => [],
  decompose: (layer) => spectrumOf(layer.weight, layer, () => {}),
};

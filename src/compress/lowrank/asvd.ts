import * as z from "zod/mini";
import type { LowRankMethod } from "../contract.js";
import { spectrumOf } from "./spectrum.js";

const options = z.strictObject({
  alpha: z
    ._default(z.number().check(z.gte(0), z.lte(2)), 0.5)
    .check(z.describe("how much input channels count by their size")),
});

/** SVD of W·S with S = diag(mean|x|^α): channels with large inputs are kept more exactly. */
export const method: LowRankMethod<z.output<typeof options>> = {
  id: "asvd",
  title: "ASVD",
  paper: "Yuan, Shang, Song, Wu, Yan, Sun 2023, arXiv:2312.05821",
  options,
  needs: () => ["columnAbsMean"],
  decompose(layer, statistics, { alpha }) {
    const scales = statistics.get("columnAbsMean").map((a) => a ** alpha + 1e-6);
    const scaled = Float64Array.from(layer.weight, (w, i) => w * scales[i % layer.cols]);
    return spectrumOf(scaled, layer, (v) => {
      for (let c = 0; c < v.length; c++) v[c] /= scales[c];
    });
  },
};

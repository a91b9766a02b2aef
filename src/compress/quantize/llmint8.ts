import * as z from "zod/mini";
import type { QuantizeMethod } from "../contract.js";
import { wholeRows } from "./int8.js";

const options = z.strictObject({
  threshold: z
    ._default(z.number().check(z.gte(0), z.lte(1e6)), 6)
    .check(z.describe("input channels that reach it stay unquantised; 0: none")),
});

/**
 * Vector-wise int8, but input channels with outliers are multiplied in float. Channels that reached the threshold in
 * calibration keep their float weights; others that reach it in a call use the values of their codes.
 */
export const method: QuantizeMethod<z.output<typeof options>> = {
  id: "llmint8",
  title: "LLM.int8()",
  paper: "Dettmers, Lewis, Belkada, Zettlemoyer 2022, arXiv:2208.07339",
  options,
  needs: ({ threshold }) => (threshold === 0 ? [] : ["columnAbsMax"]),
  quantize({ weight, rows, cols }, statistics, { threshold }) {
    const largest = threshold === 0 ? new Float32Array(cols) : statistics.get("columnAbsMax");
    const outlierColumns = Int32Array.from(
      Array.from(largest.keys()).filter((c) => threshold > 0 && largest[c] >= threshold),
    );
    const inner = weight.slice();
    for (const c of outlierColumns) for (let r = 0; r < rows; r++) inner[r * cols + c] = 0;
    const matrix = wholeRows(rows, cols, 8, true);
    matrix.fitAll(inner);
    matrix.roundAll(inner);
    const result = matrix.result();
    for (const c of outlierColumns) {
      for (let r = 0; r < rows; r++) result.weight[r * cols + c] = weight[r * cols + c];
    }
    const activation = { bits: 8, symmetric: true, per: "token", outlierThreshold: threshold } as const;
    return { ...result, outlierColumns, activation };
  },
};

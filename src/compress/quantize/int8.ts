import * as z from "zod/mini";
import type { ActivationQuantization, QuantizeMethod } from "../contract.js";
import { GridMatrix, rangeOf } from "./grid.js";

const bits = z._default(z.int().check(z.gte(2), z.lte(8)), 8).check(z.describe("bits of weights and inputs"));
const options = z.strictObject({ bits });
type Options = z.output<typeof options>;

/** A method that rounds weights, and inputs as they come, to one grid per matrix, per row or per token. */
function integerMethod(
  id: string,
  title: string,
  weights: { symmetric: boolean; per: "tensor" | "row" },
  inputs: Pick<ActivationQuantization, "symmetric" | "per">,
): QuantizeMethod<Options> {
  return {
    id,
    title,
    paper: "Dettmers, Lewis, Belkada, Zettlemoyer 2022, arXiv:2208.07339, sections 2-3",
    options,
    needs: () => [],
    quantize({ weight, rows, cols }, _statistics, { bits }) {
      const matrix = wholeRows(rows, cols, bits, weights.symmetric);
      if (weights.per === "row") matrix.fitAll(weight);
      else {
        const range = rangeOf(weight);
        for (let r = 0; r < rows; r++) matrix.setGrid(r, 0, range);
      }
      matrix.roundAll(weight);
      return { ...matrix.result(), activation: { ...inputs, bits, outlierThreshold: 0 } };
    },
  };
}

/** A matrix to be rounded with one grid for each row. */
export function wholeRows(rows: number, cols: number, bits: number, symmetric: boolean): GridMatrix {
  const scheme = symmetric ? "symmetric" : "asymmetric";
  return new GridMatrix(rows, cols, { bits, groupSize: 0, scheme, scaleType: "f32", searchRange: false });
}

const symmetric = true;
export const absmax = integerMethod("absmax", "Absmax", { symmetric, per: "tensor" }, { symmetric, per: "tensor" });
export const zeropoint = integerMethod(
  "zeropoint",
  "Zero point",
  { symmetric: false, per: "tensor" },
  { symmetric: false, per: "tensor" },
);
export const rowwise = integerMethod("rowwise", "Row-wise", { symmetric, per: "tensor" }, { symmetric, per: "token" });
export const vectorwise = integerMethod(
  "vectorwise",
  "Vector-wise",
  { symmetric, per: "row" },
  { symmetric, per: "token" },
);

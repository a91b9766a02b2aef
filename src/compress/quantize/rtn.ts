import * as z from "zod/mini";
import type { QuantizeMethod } from "../contract.js";
import { GridMatrix, gridOptions } from "./grid.js";

const options = z.strictObject(gridOptions);

/** Every weight to the nearest point of its group's grid. Needs no calibration; exact zeros stay zero. */
export const method: QuantizeMethod<z.output<typeof options>> = {
  id: "rtn",
  title: "Round to nearest",
  paper: "Dettmers, Zettlemoyer 2022, arXiv:2212.09720 (groups)",
  options,
  needs: () => [],
  quantize({ weight, rows, cols }, _statistics, options) {
    const matrix = new GridMatrix(rows, cols, options);
    matrix.fitAll(weight);
    matrix.roundAll(weight);
    return matrix.result();
  },
};

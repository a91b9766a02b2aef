import type { LinearSpec, TensorRef } from "../../arch/index.js";
import type { ChosenUnits } from "../../arch/internal.js";
import type { Matrix, Region, WeightArea } from "../../kernels/index.js";
import type { Operation } from "../pass.js";
import type { Stack } from "../stack.js";
import type { TokenHistory } from "./history.js";

/** What steps with small weights of their own are loaded with. */
export interface SmallWeights {
  readonly region: Pick<Region, "loadVector">;
  /** As it is stored: f32 or bf16. */
  matrix(map: LinearSpec): Promise<Matrix>;
  values(ref: TensorRef): Promise<Float32Array>;
  /** Of a choice: what makes the units, with the rows of its map, where single ones can be read. */
  readonly gathers?: ChosenUnits & { readonly rows: UnitRows; readonly stack: Stack };
}

/** Rows [cols] of a map, in memory that the host can point into. */
export interface UnitRows {
  readonly area: WeightArea;
  readonly format: "f32" | "bf16";
  readonly cols: number;
}

/** A step that was loaded with its own weights. */
export interface LoadedSmall {
  readonly operation: Operation;
  /** Of a choice: the product and the activation function before it as well, of one row with the chosen rows of the map alone. */
  readonly whole?: Operation;
  /** Of convolutions: what they have seen of one cache. */
  open?(): TokenHistory;
}

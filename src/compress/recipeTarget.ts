import type { Shape } from "./contract.js";
import type { TableShape } from "./tensors/index.js";

/** What must be known of a model to check a recipe against it. */
export interface RecipeTarget {
  matrices: readonly TargetMatrix[];
  /** One per layer. */
  blocks: readonly { queryHeads: number; kvHeads: number }[];
  /** The table of tokens, and whether the head is tied to it; left out where it cannot be changed. */
  embedding?: TableShape & { tied: boolean };
}

/** A linear map of a block as recipes see it. */
export interface TargetMatrix extends Shape {
  /** Unique in the model. */
  key: string;
  layer: number;
  /** The role of the map in its block ("q_proj"). */
  role: string;
  /** What a recipe may call it; messages use the first. */
  names: readonly string[];
  expert?: number;
  /** It shares its tensor with others, or lies in it in another order. */
  inPart?: true;
  /** What it loses together with others of its block; the same group, the same units. */
  units?: readonly { kind: "heads" | "neurons"; group: string; axis: "rows" | "cols" }[];
  /** Its rows are heads of keys or of values. */
  keysOrValues?: true;
  /** Factors of its inputs go into the rows of a map, into those of values, or into a norm; left out: there is no place for them. */
  inputsFrom?: "map" | "values" | "norm";
}

/** What becomes of the matrices while stages run, by their keys. */
export interface RecipeState {
  matrices: ReadonlyMap<string, TargetMatrix>;
  shapes: Map<string, Shape>;
  pruned: Set<string>;
  quantized: Set<string>;
  factored: Set<string>;
  /** Of every layer. */
  kvHeads: number[];
  queryHeads: number[];
  /** Matrices of which one length is only known to be a multiple of what `shapes` says. */
  unsure: Set<string>;
}

/** Of the stage as a whole. */
export type Say = (text: string) => void;
/** Of a matrix, or of what goes by a name in a layer. */
export type Report = (of: Pick<TargetMatrix, "layer" | "names">, problems: readonly string[]) => void;

import type { RecipeStage } from "../../../compress/index.js";
import { lowRank } from "./lowRank.js";
import { maskUnits } from "./maskUnits.js";
import { poolHeads } from "./poolHeads.js";
import { prune } from "./prune.js";
import { quantize } from "./quantize.js";
import { scale } from "./scale.js";
import type { StageHandler } from "./stage.js";
import { tensors } from "./tensors.js";

/** What each kind of stage does to a block. Dropped layers are never loaded, and the embedding is in no block. */
export const stageHandlers = { prune, quantize, scale, lowRank, tensors, poolHeads, maskUnits } as {
  readonly [Type in Exclude<RecipeStage["type"], "dropLayers" | "embedding">]: StageHandler<Type>;
};

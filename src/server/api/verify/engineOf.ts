import type { Engine } from "../../engine/engine.js";
import { ApiError } from "../../http/errors.js";
import type { ServedModel } from "../../models/servedModel.js";

/** @throws ApiError for a model that generates nothing */
export function engineOf({ engine, id }: ServedModel): Engine {
  if (engine !== undefined) return engine;
  throw new ApiError(400, `model: ${id} is an encoder and generates nothing, so it verifies nothing`, {
    param: "model",
    code: "unsupported_model",
  });
}

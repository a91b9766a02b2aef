import { isEncoder } from "../arch/index.js";
import { UsageError } from "../core/index.js";
import type { Model } from "./types.js";

/**
 * That a model predicts what comes next.
 * @throws UsageError for one that reads a text as a whole
 */
export function checkGenerates({ config }: Pick<Model, "config">): void {
  const { spec, modelType } = config;
  if (!isEncoder(spec) && spec.head.kind === "vocabulary") return;
  const does =
    spec.head.kind === "classifier"
      ? "it puts labels on texts: `rarefy classify`, or classify of rarefy"
      : "it makes vectors of texts: `rarefy embed`, or embedText of rarefy";
  throw new UsageError(`this ${modelType} model reads a text as a whole and predicts no next token; ${does}`);
}

import { UsageError } from "../core/index.js";
import { checkSound, type Model, type PassThresholds } from "../model/index.js";
import type { MemoryOptions, SequenceOptions } from "../runtime/index.js";

/**
 * What is compared: a model with given thresholds, an attention pattern, a KV policy and early exit. Several variants may
 * share one loaded model.
 */
export interface Variant extends Pick<MemoryOptions, "attention" | "kv">, Pick<SequenceOptions, "exits"> {
  /** For tables and messages. */
  name: string;
  model: Model;
  /** Undefined is "exact": whatever the model has of its own, only zeros that a ReLU leaves are skipped. */
  thresholds?: PassThresholds;
}

/** What its passes run with, whatever the model has of its own. */
export const thresholdsOf = ({ thresholds }: Variant): PassThresholds => thresholds ?? "exact";

/** @throws UsageError when variants cannot be compared token by token, FormatError for a model with damaged weights */
export function checkComparable(variants: readonly Variant[]): void {
  const [first, ...others] = variants;
  if (first === undefined) throw new UsageError("nothing to evaluate");
  for (const { model } of variants) checkSound(model);
  for (const { name, model } of others) {
    if (model.config.vocabSize === first.model.config.vocabSize) continue;
    throw new UsageError(
      `${name} has ${model.config.vocabSize} tokens in its vocabulary, ${first.name} has ${first.model.config.vocabSize}; compare models with one tokenizer`,
    );
  }
}

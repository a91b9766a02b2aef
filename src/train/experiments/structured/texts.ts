import type { JobOptions } from "../../../core/index.js";
import type { Model } from "../../../model/index.js";
import type { CompressOptions } from "../../../pipeline/index.js";
import type { Batch } from "../../objective.js";
import type { TraceOptions } from "../../trace/options.js";

/** What a model of one kind is calibrated, trained and measured with. */
export interface SubjectTexts {
  /** What is measured, in words, and how many places of it are told. */
  measure: { name: string; places: number };
  /** Mean tokens of a calibration text. */
  tokens: number;
  calibration: Pick<CompressOptions, "calibration" | "labelled">;
  trace: TraceOptions;
  /** Depends on the step alone. */
  batches(seed: number): Promise<(step: number) => Batch>;
  quality(model: Model, job: JobOptions): Promise<number>;
}

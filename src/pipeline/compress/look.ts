import type { Checkpoint, UnitMasksRecord } from "../../io/index.js";
import type { Backend } from "../../kernels/index.js";
import type { GradientFiles } from "./gradientFiles.js";
import type { CompressionPlan, CompressOptions } from "./planned.js";
import type { StageBudget } from "./stages/stage.js";
import type { Workspace } from "./workspace.js";

/** What the dense model is looked at with. */
export interface Look {
  workspace: Workspace;
  checkpoint: Checkpoint;
  plan: CompressionPlan;
  /** undefined: no windows are run. */
  backend: Backend | undefined;
  options: CompressOptions;
  gradients: GradientFiles | undefined;
}

/** What a look at the dense model for one stage found: its budget by layer of the source. */
export interface StageSurvey {
  budgets: Record<string, StageBudget>;
  unitMasks?: UnitMasksRecord;
}

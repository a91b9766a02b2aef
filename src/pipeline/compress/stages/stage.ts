import {
  type AnyOptions,
  InputStatistics,
  type Layer,
  type RecipeStage,
  type ResolvedStage,
  reconstructionError,
  type StatisticId,
} from "../../../compress/index.js";
import type { UnitType } from "../../../compress/internal.js";
import { NonFiniteError } from "../../../core/index.js";
import type { BlockGradients } from "../../gradients.js";
import { type BlockMatrix, type DecoderBlock, type InputKey, inputKey, matrixNames } from "../block.js";

/** What a stage sees while it works on one block. */
export interface StageContext<Type extends RecipeStage["type"] = RecipeStage["type"]> {
  readonly stage: RecipeStage & { type: Type };
  /** Complete options of the stage's method. */
  readonly options: AnyOptions;
  /** The matrices of the block that the stage is for, in the order of the model. */
  readonly targets: readonly BlockMatrix[];
  readonly block: DecoderBlock;
  /** What enters the block's matrices as they are before the stage; without calibration nothing is in them. */
  readonly statistics: ReadonlyMap<InputKey, InputStatistics>;
  /** Of the loss, at the weights of the source; nothing where the stage needs none. */
  readonly gradients?: BlockGradients["values"];
  /** With a global scope: how many zeros (entries) or units stay, by the id of the matrix or for the block. */
  readonly budget: StageBudget | undefined;
  /** Called between matrices. */
  breathe(): Promise<void>;
}

/** What one threshold for the whole model gave this stage and block. */
export interface StageBudget {
  /** Entries that go, by the id of the matrix. */
  zeros?: Readonly<Record<string, number>>;
  /** How many neurons or key and value heads stay. */
  unitsKept?: number;
  /** Which ones, ascending, where that is known already. */
  units?: readonly number[];
  /** By kind of unit: what each is multiplied by, 0 = it goes; none where they are left alone. */
  factors?: Readonly<Record<UnitType, readonly number[]>>;
}

export interface StageHandler<Type extends RecipeStage["type"] = RecipeStage["type"]> {
  /** Which statistics `apply` reads. */
  needs(resolved: ResolvedStage & { stage: { type: Type } }): Promise<readonly StatisticId[]>;
  /** Whether it changes the outputs of single matrices, so that an error can be measured. */
  readonly approximates: boolean;
  apply(context: StageContext<Type>): Promise<void>;
}

export const inputKeyOf = ({ place: { step, expert } }: BlockMatrix): InputKey => inputKey(step.site.id, expert);

/** What enters a matrix, and what is known of its gradients; without calibration, nothing is known of it. */
export function inputOf(
  { statistics, gradients }: Pick<StageContext, "statistics" | "gradients">,
  matrix: BlockMatrix,
): InputStatistics {
  const shared = statistics.get(inputKeyOf(matrix)) ?? new InputStatistics(matrix.cols, 0);
  if (gradients === undefined) return shared;
  const own = Object.entries(gradients).map(([id, values]) => [id, values.get(matrix.key)]);
  return new InputStatistics(shared.cols, shared.tokens, { ...shared.values, ...Object.fromEntries(own) });
}

export const linearOf = ({ weight, rows, cols, mask }: BlockMatrix): Layer => ({
  weight,
  rows,
  cols,
  ...(mask && { mask }),
});

/** Of larger matrices so many rows stand for all. */
const measuredRows = 128;

/** Adds what a change of a matrix does to its output; nothing where the gram of the input is not known. */
export function measureChange(context: StageContext, matrix: BlockMatrix, after: Float32Array): void {
  const statistics = inputOf(context, matrix);
  if (!statistics.has("gram") || statistics.tokens === 0) return;
  const { relative } = reconstructionError(matrix.weight, after, matrix, statistics, measuredRows);
  if (!Number.isFinite(relative)) {
    const [name] = matrixNames(context.block.layer, matrix.place);
    throw new NonFiniteError(
      `${name}: ${context.stage.type} changed its outputs on the calibration text by ${relative} times their size; calibrate on more text, or with another method`,
    );
  }
  matrix.squaredError = (matrix.squaredError ?? 0) + relative ** 2;
}

/** Whether units go in several steps, between which importances change. */
export const isInSteps = (stage: RecipeStage): boolean => stage.type === "prune" && (stage.steps ?? 1) > 1;

/** Whether the recipe's stage looks at the whole model before it begins. */
export const isGlobal = (stage: RecipeStage): boolean =>
  stage.type === "maskUnits" ||
  isInSteps(stage) ||
  (stage.type === "prune" && "scope" in stage.pattern && stage.pattern.scope === "global");

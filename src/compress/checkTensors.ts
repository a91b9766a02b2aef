import { UsageError } from "../core/index.js";
import { type Factors, factorParameters } from "../tensor/index.js";
import { chainProblem, factorProblems } from "../tensor/internal.js";
import type { AnyOptions } from "./contract.js";
import type { RecipeStage } from "./recipe.js";
import type { RecipeState, RecipeTarget, Report, Say, TargetMatrix } from "./recipeTarget.js";
import type { TableShape, TensorMethod } from "./tensors/index.js";

type TensorStage = RecipeStage & { type: "tensors" | "embedding" };

/** What a stage would make of a shape, with what stands in the way of it. */
function planned(
  { rank, keepRatio, tolerance }: TensorStage,
  method: TensorMethod,
  options: AnyOptions,
  shape: TableShape,
): { factors?: Factors; problems: string[] } {
  const given = [rank, keepRatio, tolerance].filter((size) => size !== undefined).length;
  if (given !== 1) return { problems: ["give one of rank, keepRatio and tolerance"] };
  if (tolerance !== undefined && !method.tolerates) return { problems: [`${method.id} takes no tolerance`] };
  try {
    const factors = method.plan(shape, options, { rank, keepRatio, tolerance });
    const problems = factorProblems(factors, shape);
    const [numbers, all] = [factorParameters(factors, shape), shape.rows * shape.cols];
    if (problems.length === 0 && tolerance === undefined && numbers >= all) {
      problems.push(`factors of ${numbers} numbers are no smaller than ${shape.rows} × ${shape.cols}`);
    }
    return { factors, problems };
  } catch (error) {
    if (error instanceof UsageError) return { problems: [error.message] };
    throw error;
  }
}

export function checkTensors(
  stage: RecipeStage & { type: "tensors" },
  method: TensorMethod,
  options: AnyOptions,
  matrices: readonly TargetMatrix[],
  state: RecipeState,
  report: Report,
  say: Say,
): void {
  if (!method.of.includes("blocks"))
    say(`${method.id} is for embeddings: rows can be looked up in it, and nothing multiplied`);
  for (const matrix of matrices) {
    const shape = state.shapes.get(matrix.key)!;
    if (matrix.expert !== undefined) report(matrix, ["experts cannot be stored as factors"]);
    if (state.unsure.has(matrix.key)) report(matrix, ["its size is not known before the stages before it have run"]);
    if (state.pruned.has(matrix.key)) report(matrix, ["an earlier stage pruned it, and factors would fill its zeros"]);
    const { factors, problems } = planned(stage, method, options, shape);
    const problem = factors && problems.length === 0 ? chainProblem(factors, shape) : undefined;
    report(matrix, problem === undefined ? problems : [problem]);
    state.factored.add(matrix.key);
  }
}

/** The embedding, which is looked up and, where the head is tied to it, multiplied with. */
export function checkEmbedding(
  stage: RecipeStage & { type: "embedding" },
  method: TensorMethod,
  options: AnyOptions,
  { embedding }: Pick<RecipeTarget, "embedding">,
  say: Say,
): void {
  if (embedding === undefined) {
    say("the model has no embedding of its own, or it lies in factors already");
    return;
  }
  if (!method.of.includes("embedding")) say(`${method.id} is for matrices of blocks`);
  const { factors, problems } = planned(stage, method, options, embedding);
  for (const problem of problems) say(problem);
  if (factors === undefined || problems.length > 0 || !embedding.tied) return;
  const problem = chainProblem(factors, embedding);
  if (problem !== undefined) say(`the head is tied to the embedding, and ${problem}`);
}

import { UsageError } from "../core/index.js";
import { resolveModel } from "../io/index.node.js";
import { type Batch, type BatchArray, decoderObjective, teacherName } from "../train/index.js";
import type { Context } from "./command.js";
import { loadTrainable, type TrainableModel } from "./trainableModel.js";
import type { TrainingCommandOptions } from "./trainingOptions.js";

/** A model whose predictions are learnt from; it does not change. */
export interface Teacher extends Disposable {
  /** For the record: directory or Hub id. */
  readonly location: string;
  /** The batch with the teacher's logits in it. */
  teach(batch: Batch): Promise<Batch>;
}

/**
 * --teacher, or the student as it is before training (Huang et al. 2025 and 2024: what sparse training loses, the dense model
 * still knows).
 * @returns undefined without --distil
 * @throws UsageError for a teacher of another vocabulary
 */
export async function openTeacher(
  context: Context,
  student: TrainableModel,
  options: TrainingCommandOptions,
): Promise<Teacher | undefined> {
  const { distil, temperature, teacher, batch, window, device } = options;
  if (distil === undefined) {
    if (teacher === undefined && temperature === undefined) return undefined;
    throw new UsageError("--teacher and --temperature belong to --distil");
  }
  const model =
    teacher === undefined
      ? { ...student, weights: new Map(Array.from(student.weights, ([name, values]) => [name, values.slice()])) }
      : await loadTrainable(await resolveModel(teacher, context), { routerOption: {}, batch, window }, context);
  const { vocabSize } = student.config;
  if (model.config.vocabSize !== vocabSize) {
    throw new UsageError(`the teacher has ${model.config.vocabSize} tokens, the student ${vocabSize}`);
  }
  const { config, parameters, weights, mixture, files } = model;
  const objective = await decoderObjective(config, parameters, window, device, { moe: mixture?.moe });
  // Routers of a student that teaches itself move on; the teacher's do not.
  const routers = Object.fromEntries(
    Object.entries(mixture?.control?.arrays() ?? {}).map(([name, { shape, values }]) => [
      name,
      { shape, values: values.slice() },
    ]),
  );
  return {
    location: files.location,
    async teach(batch) {
      const values = await objective.predict(weights, { ...batch, ...routers });
      const logits: BatchArray = { shape: [values.length / vocabSize, vocabSize], values };
      return { ...batch, [teacherName]: logits };
    },
    [Symbol.dispose]: () => objective[Symbol.dispose](),
  };
}

import { type JobOptions, UsageError } from "../core/index.js";
import type { LocalModelFiles } from "../io/index.js";
import { type Batch, type BatchArray, decoderObjective, type FloatArray, teacherName } from "../train/index.js";
import { loadTrainable, type TrainableModel } from "./trainableModel.js";
import type { TrainingSettings } from "./trainingSettings.js";

/** A model whose predictions are learnt from; it does not change. */
export interface Teacher extends Disposable {
  /** For the record: directory or Hub id. */
  readonly location: string;
  /** The teacher's logits, f32 [tokens, vocabSize]. */
  predict(batch: Batch): Promise<FloatArray>;
  /** The batch with the teacher's logits in it. */
  teach(batch: Batch): Promise<Batch>;
}

/**
 * The teacher's model, or the student as it is before training (Huang et al. 2025 and 2024: what sparse training loses, the
 * dense model still knows).
 * @throws UsageError for a teacher of another vocabulary
 */
export async function openTeacher(
  student: TrainableModel,
  teacher: LocalModelFiles | undefined,
  { batch, window, device, signal, onProgress }: TrainingSettings & JobOptions,
): Promise<Teacher> {
  const model =
    teacher === undefined
      ? { ...student, weights: new Map(Array.from(student.weights, ([name, values]) => [name, values.slice()])) }
      : await loadTrainable(teacher, { routerOption: {}, batch, window }, { signal, onProgress });
  const { vocabSize } = student.config;
  if (model.config.vocabSize !== vocabSize) {
    throw new UsageError(`the teacher has ${model.config.vocabSize} tokens, the student ${vocabSize}`);
  }
  const { config, parameters, weights, mixture, files } = model;
  const objective = await decoderObjective(config.spec, parameters, window, device, { router: mixture?.router });
  // Routers of a student that teaches itself move on; the teacher's do not.
  const routers = Object.fromEntries(
    Object.entries(mixture?.control?.arrays() ?? {}).map(([name, { shape, values }]) => [
      name,
      { shape, values: values.slice() },
    ]),
  );
  const predict = (batch: Batch) => objective.predict(weights, { ...batch, ...routers });
  return {
    location: files.location,
    predict,
    async teach(batch) {
      const values = await predict(batch);
      const logits: BatchArray = { shape: [values.length / vocabSize, vocabSize], values };
      return { ...batch, [teacherName]: logits };
    },
    [Symbol.dispose]: () => objective[Symbol.dispose](),
  };
}

import { type JobOptions, UsageError } from "../core/index.js";
import type { LocalModelFiles } from "../io/index.js";
import {
  type Batch,
  type BatchArray,
  decoderObjective,
  type FloatArray,
  initialProjections,
  type Matching,
  type MatchingOptions,
  matchingOf,
  type Objective,
  shownFor,
  type TeacherModel,
  teacherName,
} from "../train/index.js";
import { loadTrainable, type TrainableModel } from "./trainableModel.js";
import type { TrainingSettings } from "./trainingSettings.js";

/** A model whose predictions are learnt from, or what its blocks have; it does not change. */
export interface Teacher extends Disposable {
  /** For the record: directory or Hub id. */
  readonly location: string;
  readonly model: TeacherModel;
  /** Makes an objective of it, as the first question does. Not needed where the student's has the teacher within itself. */
  open(): Promise<unknown>;
  /** What of its blocks is learnt from. */
  readonly matching?: Matching;
  /** First values of the matrices through which a student of another width is seen. */
  readonly projections: Map<string, FloatArray>;
  /** The teacher's logits, f32 [tokens, vocabSize]. */
  predict(batch: Batch): Promise<FloatArray>;
  /** The batch with all in it that is learnt from on the text. */
  teach(batch: Batch): Promise<Batch>;
}

/** What is learnt from a teacher, as far as it is asked on the text. */
export interface Wanted {
  logits: boolean;
  match?: MatchingOptions;
}

/**
 * The teacher's model, or the student as it is before training (Huang et al. 2025 and 2024: what sparse training loses, the
 * dense model still knows).
 * @throws UsageError for a teacher of another vocabulary, or without the blocks that are to be matched
 */
export async function openTeacher(
  student: TrainableModel,
  teacher: LocalModelFiles | undefined,
  { logits, match }: Wanted,
  { batch, window, device, seed, signal, onProgress }: TrainingSettings & JobOptions,
): Promise<Teacher> {
  const model =
    teacher === undefined
      ? {
          ...student,
          weights: new Map(Array.from(student.before ?? student.weights, ([name, values]) => [name, values.slice()])),
        }
      : await loadTrainable(teacher, { routerOption: {}, batch, window }, { signal, onProgress });
  const { vocabSize } = student.config;
  if (model.config.vocabSize !== vocabSize) {
    throw new UsageError(`the teacher has ${model.config.vocabSize} tokens, the student ${vocabSize}`);
  }
  const { config, parameters, weights, mixture, files } = model;
  const matching = match && matchingOf(match, student.config.spec, config.spec);
  const { spec } = config;
  const router = mixture?.router;
  let objective: Objective | undefined;
  const open = async () => {
    const shown = matching && { logits, ...shownFor(matching) };
    objective ??= await decoderObjective(spec, parameters, window, device, { router, shown });
    return objective;
  };
  // Routers of a student that teaches itself move on; the teacher's do not.
  const routers = Object.fromEntries(
    Object.entries(mixture?.control?.arrays() ?? {}).map(([name, { shape, values }]) => [
      name,
      { shape, values: values.slice() },
    ]),
  );
  const predict = async (batch: Batch) => (await open()).predict(weights, { ...batch, ...routers });
  return {
    location: files.location,
    model: { spec, parameters, weights, router },
    open,
    matching,
    projections: matching === undefined ? new Map() : initialProjections(matching, seed),
    predict,
    async teach(batch) {
      const objective = await open();
      if (objective.show !== undefined)
        return { ...batch, ...(await objective.show(weights, { ...batch, ...routers })) };
      if (!logits) return batch;
      const values = await predict(batch);
      const judged: BatchArray = { shape: [values.length / vocabSize, vocabSize], values };
      return { ...batch, [teacherName]: judged };
    },
    [Symbol.dispose]: () => objective?.[Symbol.dispose](),
  };
}

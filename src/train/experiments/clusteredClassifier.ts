import { classificationData, type LabelledText, Vocabulary, wordsOf } from "../data/labelledText.js";
import { batchOfStep, rowsOf } from "../data/rows.js";
import { encoderObjective } from "../engine/open.js";
import { method as dense } from "../methods/dense.js";
import { centroidControl } from "../models/clusterParameters.js";
import { type EncoderConfig, encoderClusters, initialEncoder } from "../models/encoderParameters.js";
import { cosine } from "../optimizers/schedule.js";
import { runTraining } from "../runTraining.js";
import { randomFor } from "../seeds.js";
import { Training } from "../training.js";
import { accuracy, flat, labelsOf, readLabelled } from "./classification.js";
import { type Classification, encoders } from "./clusteredProtocol.js";
import type { Cell, CellOptions, CellResult } from "./contract.js";

/** Words of an encoder, the commonest. */
export const vocabularySize = 10_000;
const saveEvery = 50;

export interface ClassifierResult extends CellResult {
  /** Per cent. */
  train: number;
  test: number;
  /** Texts of the training and of the test set, and steps. */
  trainTexts: number;
  testTexts: number;
  steps: number;
}

/** Trains the encoder of a cell on a data set and tests it. */
export async function trainClusteredClassifier(
  { seed, settings }: Cell,
  protocol: Classification,
  { signal, onProgress, readText, device, state }: CellOptions,
): Promise<ClassifierResult> {
  const { dataset, kind, length } = settings as { dataset: string; kind: string; length: number };
  const { network, lengths, embedding, rate, maxTexts } = protocol;
  const { batchSize, epochs, documents } = lengths[length];
  const read = async (part: "train" | "test") => {
    const texts = await readLabelled(dataset, part, readText);
    // The same documents for every way of attending.
    return documents === undefined ? texts : joinedTexts(texts, documents[part], length, seed, part);
  };
  const trainTexts = (await read("train")).slice(0, maxTexts);
  const testTexts = await read("test");
  const labels = labelsOf(trainTexts);
  const vocabulary = new Vocabulary(
    trainTexts.map(({ text }) => text),
    vocabularySize,
  );
  const train = classificationData(trainTexts, labels, vocabulary, length, `${dataset}.train.tsv`);
  const test = classificationData(testTexts, labels, vocabulary, length, `${dataset}.test.tsv`);

  const clusters = encoders[kind].clusters?.(network.heads, network.blocks);
  const config: EncoderConfig = { ...network, length, vocabSize: vocabulary.size, classes: labels.length, clusters };
  const clustered = encoderClusters(config);
  const control = clustered && centroidControl(clustered.plan, clustered.sizes, randomFor(seed, "centroids"));
  using objective = await encoderObjective(config, device);
  const steps = epochs * Math.floor(rowsOf(train) / batchSize);
  const schedule = cosine({ peak: rate, final: rate / 10, warmup: Math.floor(steps / 20), steps });
  const training = new Training({
    objective,
    weights: initialEncoder(config, randomFor(seed, "weights"), embedding),
    optimizer: { rate: schedule },
    steps,
    seed,
    method: (context) => dense.start(context, {}),
    control,
    onDevice: true,
  });
  const stored = await state.load();
  if (stored !== undefined) training.restore(stored);
  await runTraining({
    training,
    batch: (step) => flat(batchOfStep(train, batchSize, seed, step)),
    steps,
    rate: schedule,
    async save() {
      await training.synchronise();
      await state.save(training.step, training.state);
    },
    saveEvery,
    signal,
    onProgress,
  });
  const tested = { signal, onProgress, steering: control?.arrays() };
  return {
    train: await accuracy(training, train, batchSize, labels.length, tested),
    test: await accuracy(training, test, batchSize, labels.length, tested),
    trainTexts: trainTexts.length,
    testTexts: testTexts.length,
    steps,
  };
}

/**
 * Documents of at least `words` words, each of sentences of one class drawn at random, the classes in turn; no sentence stands twice in a
 * document as long as there are others.
 */
export function joinedTexts(
  texts: readonly LabelledText[],
  count: number,
  words: number,
  seed: number,
  part: string,
): LabelledText[] {
  const labels = labelsOf(texts);
  const ofLabel = labels.map((wanted) =>
    texts.filter(({ label }) => label === wanted).map(({ text }) => ({ text, words: wordsOf(text).length })),
  );
  return Array.from({ length: count }, (_, document) => {
    const label = document % labels.length;
    const random = randomFor(seed, `joined ${part}`, document);
    const open: { text: string; words: number }[] = [];
    const chosen: string[] = [];
    for (let length = 0; length < words; ) {
      if (open.length === 0) open.push(...ofLabel[label]);
      const at = random.integer(open.length);
      const [{ text, words }] = open.splice(at, 1);
      chosen.push(text);
      // A sentence without words would never fill a document.
      length += Math.max(1, words);
    }
    return { label: labels[label], text: chosen.join(" ") };
  });
}

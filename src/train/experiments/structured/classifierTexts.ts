import type { ModelConfig } from "../../../arch/index.js";
import { breathe, type JobOptions, Stage, UsageError } from "../../../core/index.js";
import { type Checkpoint, sha256Hex } from "../../../io/index.js";
import { classify } from "../../../runtime/index.js";
import { loadTokenizer } from "../../../text/index.js";
import { tokensOfText } from "../../../text/internal.js";
import { parseLabelledText } from "../../data/labelledText.js";
import { batchOfStep } from "../../data/rows.js";
import type { Batch } from "../../objective.js";
import { fillingName, fillingOf } from "../../trace/filling.js";
import type { ExperimentTexts } from "../contract.js";
import type { SubjectProtocol } from "./protocol.js";
import type { SubjectTexts } from "./texts.js";

/** Where the texts of a classifier are. */
export const classifierFiles = { training: "subj.train.tsv", test: "subj.test.tsv" };

/** Labelled texts; each begins with the begin-of-text token where the tokenizer has one and puts none itself. */
export async function classifierTexts(
  checkpoint: Checkpoint,
  config: ModelConfig,
  { calibration, test, batchSize, window }: SubjectProtocol,
  readText: ExperimentTexts,
): Promise<SubjectTexts> {
  const { head } = config.spec;
  if (head.kind !== "classifier") throw new UsageError(`${checkpoint.location} does not classify`);
  const tokenizer = await loadTokenizer(checkpoint.files);
  const bos = tokenizer.beginId !== undefined && tokenizer.encode("a")[0] !== tokenizer.beginId;
  const read = async (file: string, most: number, count: number) => {
    const content = await readText(file);
    const rows = parseLabelledText(content, file).slice(0, count);
    const labels = rows.map(({ label }) => head.labels.indexOf(label));
    const unknown = labels.indexOf(-1);
    if (unknown >= 0) {
      throw new UsageError(
        `${file}: ${checkpoint.location} knows ${head.labels.join(" and ")}, and not ${rows[unknown].label}`,
      );
    }
    const texts = rows.map(({ text }) => tokensOfText(tokenizer, text, Math.min(most, config.maxPositions), bos));
    return { texts, labels, sha256: await sha256Hex(content), name: file };
  };
  const all = await read(classifierFiles.training, window, Number.POSITIVE_INFINITY);
  const seen = Math.min(calibration.windows, all.texts.length);
  const labelled = {
    ...all,
    texts: all.texts.slice(0, seen).map((text) => text.subarray(0, calibration.window)),
    labels: all.labels.slice(0, seen),
  };
  return {
    measure: { name: `accuracy on ${classifierFiles.test}, %`, places: 2 },
    tokens: labelled.texts.reduce((sum, { length }) => sum + length, 0) / seen,
    calibration: { labelled },
    trace: { classifies: true },
    async batches(seed) {
      const tokens = new Int32Array(all.texts.length * window);
      for (const [i, text] of all.texts.entries()) tokens.set(text, i * window);
      const rows: Batch = {
        tokens: { shape: [all.texts.length, window], values: tokens },
        label: { shape: [all.texts.length], values: Int32Array.from(all.labels) },
        length: { shape: [all.texts.length], values: Int32Array.from(all.texts, ({ length }) => length) },
      };
      return (step) => {
        const { tokens, label, length } = batchOfStep(rows, batchSize, seed, step);
        return {
          tokens: { shape: [tokens.values.length], values: tokens.values },
          label,
          [fillingName]: fillingOf(Uint32Array.from(length.values), window),
        };
      };
    },
    async quality(model, { signal, onProgress }: JobOptions) {
      const { texts, labels } = await read(classifierFiles.test, test.window, test.windows);
      const stage = new Stage("classify", texts.length, "texts", onProgress);
      let right = 0;
      for (const [i, text] of texts.entries()) {
        await breathe(signal);
        if ((await classify(model, text, { signal })).label === head.labels[labels[i]]) right++;
        stage.advance(1);
      }
      return (100 * right) / texts.length;
    },
  };
}

import type { ModelConfig } from "../../../arch/index.js";
import type { JobOptions } from "../../../core/index.js";
import { evaluateQuality } from "../../../eval/index.js";
import type { Checkpoint } from "../../../io/index.js";
import { loadTokenizer, tokenizeText } from "../../../text/index.js";
import { TokenWindows, tokenizeDocuments } from "../../data/tokens.js";
import type { ExperimentTexts } from "../contract.js";
import type { SubjectProtocol } from "./protocol.js";
import type { SubjectTexts } from "./texts.js";

/** Where the texts of a decoder are. */
export const decoderFiles = { training: "train-books.txt.xz", calibration: "calib.txt", evaluation: "books-eval.txt" };

/** Plain texts in windows. */
export async function decoderTexts(
  checkpoint: Checkpoint,
  _config: ModelConfig,
  { calibration, test, batchSize, window, maxTokens }: SubjectProtocol & { maxTokens: number },
  readText: ExperimentTexts,
  job: JobOptions,
): Promise<SubjectTexts> {
  const tokenizer = await loadTokenizer(checkpoint.files);
  const tokensOf = async (name: string, windows: number, window: number) =>
    tokenizeText(tokenizer, await readText(name), { ...job, maxTokens: windows * window, name });
  return {
    measure: { name: `perplexity on ${decoderFiles.evaluation}`, places: 3 },
    tokens: calibration.window,
    calibration: { calibration: await tokensOf(decoderFiles.calibration, calibration.windows, calibration.window) },
    trace: {},
    async batches(seed) {
      const text = await readText(decoderFiles.training);
      const windows = new TokenWindows(
        await tokenizeDocuments(tokenizer, text, { ...job, maxTokens }),
        window,
        batchSize,
        seed,
      );
      return (step) => windows.batch(step);
    },
    async quality(model, options) {
      const text = await tokensOf(decoderFiles.evaluation, test.windows, test.window);
      const [{ perplexity }] = await evaluateQuality([{ name: "model", model }], text, {
        ...options,
        window: test.window,
        maxWindows: test.windows,
      });
      return perplexity;
    },
  };
}

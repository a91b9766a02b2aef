import type { Recipe } from "../compress/index.js";
import type { ModelFiles } from "../io/index.js";
import { type TokenizedText, tokenizeText } from "../text/index.js";
import { beginWindows } from "../text/internal.js";
import type { Context } from "./command.js";
import { openTokenizer } from "./tokenizer.js";

export interface CalibrationText {
  text: string;
  /** The file that it came from. */
  name: string | undefined;
  /** How many windows of how many tokens are wanted; drawn ones come from the whole text. */
  windows: Pick<Recipe["calibration"], "window" | "windows"> & { order?: Recipe["calibration"]["order"] };
  /** Whether each window begins with the begin-of-text token. */
  bos: boolean | undefined;
}

/** Tokens that windows from a text's start come from; undefined for the whole text, of which windows are drawn. */
export const calibrationMaxTokens = ({ windows, window, order }: CalibrationText["windows"]): number | undefined =>
  order === "random" ? undefined : windows * window;

/** A text to calibrate on as the tokens that a job needs. */
export async function calibrationTokens(
  context: Pick<Context, "signal" | "onProgress" | "warn">,
  files: ModelFiles,
  { text, name, windows, bos }: CalibrationText,
): Promise<TokenizedText> {
  const { signal, onProgress } = context;
  const tokenizer = await openTokenizer(context, files);
  const tokens = await tokenizeText(tokenizer, text, {
    maxTokens: calibrationMaxTokens(windows),
    name,
    signal,
    onProgress,
  });
  return bos ? beginWindows(tokens, tokenizer, windows.window) : tokens;
}

/** How a command's options say what it calibrates on. */
interface CalibrationOptions {
  window: number;
  calibrationWindows: number;
  bos?: boolean;
}

/** The first windows of a text, as a command's options want them. @param name the file that it came from */
export const calibrationText = (
  context: Pick<Context, "signal" | "onProgress" | "warn">,
  files: ModelFiles,
  { text, name }: Pick<CalibrationText, "text" | "name">,
  { window, calibrationWindows, bos }: CalibrationOptions,
): Promise<TokenizedText> =>
  calibrationTokens(context, files, { text, name, windows: { window, windows: calibrationWindows }, bos });

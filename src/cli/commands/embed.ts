import { Option } from "commander";
import { embedText, type Pooling } from "../../runtime/index.js";
import type { CommandDefinition, CommonOptions } from "../command.js";
import { digits, terminalText } from "../format.js";
import { machineOptions, modelArgument, weightsOption } from "../options.js";
import { forEachText, type WholeTextOptions, wholeTextOptions, wholeTexts } from "../wholeTexts.js";

/** Texts are shown up to here. */
const shownCharacters = 60;

export const command: CommandDefinition<CommonOptions & WholeTextOptions & { pooling: Pooling }> = {
  description:
    "Makes a vector of length 1 of each text; --json prints them. Without it, how much each text is like the first one: the " +
    "cosine of the angle between their vectors.",
  arguments: [modelArgument],
  options: [
    ...wholeTextOptions(),
    new Option("--pooling <kind>", "what a vector is made of: the mean of all tokens, or the first one")
      .choices(["mean", "first"])
      .default("mean"),
    weightsOption(),
    ...machineOptions(),
  ],
  examples: [
    'rarefy embed ./sentence-encoder --prompt "a film that stays with you" --json',
    "rarefy embed ./sentence-encoder --text lines.txt --pooling first",
  ],
  async run(context, options, [argument]) {
    const texts = await wholeTexts(context, options);
    const { pooling } = options;
    const vectors = await forEachText(context, argument, options, texts, (model, tokens) =>
      embedText(model, tokens, { pooling, signal: context.signal }),
    );
    const [first] = vectors;
    for (const [i, vector] of vectors.entries()) {
      const cosine = vector.reduce((sum, value, c) => sum + value * first[c], 0);
      context.print(`${digits(cosine, 4)}  ${terminalText(texts[i].text!.slice(0, shownCharacters))}\n`);
    }
    return { size: first.length, vectors: vectors.map((vector) => [...vector]) };
  },
};

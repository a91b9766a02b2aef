import { classify } from "../../runtime/index.js";
import type { CommandDefinition, CommonOptions } from "../command.js";
import { percent, terminalText } from "../format.js";
import { machineOptions, modelArgument, weightsOption } from "../options.js";
import { forEachText, type WholeTextOptions, wholeTextOptions, wholeTexts } from "../wholeTexts.js";

/** Texts are shown up to here. */
const shownCharacters = 60;

export const command: CommandDefinition<CommonOptions & WholeTextOptions> = {
  description:
    "Puts a label on each text with a model that classifies (BertForSequenceClassification). Of a file with the header " +
    "label<tab>text the accuracy is counted. Texts are read as a whole, with the special tokens that the tokenizer adds, and " +
    "cut where the model ends.",
  arguments: [modelArgument],
  options: [...wholeTextOptions(), weightsOption(), ...machineOptions()],
  examples: [
    'rarefy classify ./sentiment-model --prompt "a film that stays with you"',
    "rarefy classify ./sentiment-model --text reviews.tsv --weights f32",
  ],
  async run(context, options, [argument]) {
    const texts = await wholeTexts(context, options);
    const found = await forEachText(context, argument, options, texts, classify);
    const results = found.map(({ label, probabilities }, i) => ({
      label,
      probability: Math.max(...probabilities),
      ...(texts[i].label !== undefined && { expected: texts[i].label }),
    }));
    const labelled = results.filter(({ expected }) => expected !== undefined);
    if (labelled.length === 0) {
      for (const [i, { label, probability }] of results.entries()) {
        const shown = terminalText(texts[i].text!.slice(0, shownCharacters));
        context.print(`${percent(probability, 1).padStart(6)}  ${terminalText(label)}  ${shown}\n`);
      }
      return { results };
    }
    const correct = labelled.filter(({ label, expected }) => label === expected).length;
    const accuracy = correct / labelled.length;
    context.print(`${percent(accuracy, 2)} of ${labelled.length} texts labelled right (${correct})\n`);
    return { texts: labelled.length, correct, accuracy, results };
  },
};

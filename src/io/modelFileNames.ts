import { artifactFileName } from "./artifact.js";
import { indexFileName } from "./placeTensors.js";
import { recordFileNames } from "./quantized/recordFiles.js";

const companion =
  /^(?:(?:generation_config|special_tokens_map|added_tokens|vocab)\.json|merges\.txt|tokenizer[\w.-]*|chat_template\.(?:jinja|json)|(?:LICENSE|NOTICE)[\w.-]*)$/;

/** Whether a file belongs to a model whatever is done to its weights: tokenizer, chat template, generation settings, licence. */
export const isCompanionFile = (name: string): boolean => companion.test(name);

/** Whether a file holds weights, by its name. */
export const isWeightFile = (name: string): boolean => name.endsWith(".safetensors") || name.endsWith(".gguf");

/** Files that say what a model is and how its weights are stored. */
export const descriptionFileNames: readonly string[] = ["config.json", artifactFileName, ...recordFileNames];

/** Whether a file belongs to a model. What else lies beside it is its owner's. */
export const isModelFile = (name: string): boolean =>
  [...descriptionFileNames, indexFileName].includes(name) || isCompanionFile(name) || isWeightFile(name);

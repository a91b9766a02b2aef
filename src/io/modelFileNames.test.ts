import { expect, test } from "vitest";
import { isCompanionFile, isModelFile } from "./modelFileNames.js";

test.each([
  ["tokenizer.json", true, true],
  ["tokenizer.model", true, true],
  ["generation_config.json", true, true],
  ["chat_template.jinja", true, true],
  ["LICENSE.txt", true, true],
  ["config.json", false, true],
  ["rarefy.json", false, true],
  ["model-00001-of-00002.safetensors", false, true],
  ["model.safetensors.index.json", false, true],
  ["text.xz", false, false],
  ["training.jsonl", false, false],
  ["README.md", false, false],
  ["pytorch_model.bin", false, false],
  ["my tokenizer.json", false, false],
])("%s: a companion %s, of the model %s", (name, isCompanion, isOfModel) => {
  expect([isCompanionFile(name), isModelFile(name)]).toEqual([isCompanion, isOfModel]);
});

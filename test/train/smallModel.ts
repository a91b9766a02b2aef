import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** A directory with the config of a decoder of one narrow layer, and the tokenizer of the packaged model. */
export function smallConfig(directory: string, changes: Record<string, unknown> = {}): void {
  mkdirSync(directory);
  for (const name of ["tokenizer.json", "tokenizer_config.json"]) {
    cpSync(`models/tiny-6m/${name}`, join(directory, name));
  }
  const large = JSON.parse(readFileSync("models/tiny-6m/config.json", "utf8"));
  const narrow = {
    hidden_size: 32,
    intermediate_size: 64,
    num_hidden_layers: 1,
    num_attention_heads: 2,
    num_key_value_heads: 1,
    head_dim: 16,
  };
  writeFileSync(join(directory, "config.json"), JSON.stringify({ ...large, ...narrow, ...changes }));
}

/** The first characters of the packaged calibration text. */
export const trainingText = (characters: number): string =>
  readFileSync("models/text/calib.txt", "utf8").slice(0, characters);

/** A directory with the config of an encoder of two narrow layers that tells two classes apart, and the same tokenizer. */
export function smallClassifier(directory: string, labels: readonly string[]): void {
  smallConfig(directory);
  const config = {
    architectures: ["BertForSequenceClassification"],
    model_type: "bert",
    vocab_size: 8192,
    hidden_size: 16,
    intermediate_size: 32,
    num_hidden_layers: 2,
    num_attention_heads: 2,
    max_position_embeddings: 32,
    id2label: Object.fromEntries(labels.map((label, i) => [String(i), label])),
  };
  writeFileSync(join(directory, "config.json"), JSON.stringify(config));
}

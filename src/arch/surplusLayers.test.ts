import { expect, test } from "vitest";
import { readModelSpec } from "./index.js";
import { surplusLayers } from "./surplusLayers.js";

const sizes = { vocab_size: 64, hidden_size: 32, intermediate_size: 32, num_hidden_layers: 2, num_attention_heads: 2 };

test.each([
  ["llama", sizes, "model.layers."],
  ["gpt2", { vocab_size: 64, n_embd: 32, n_layer: 2, n_head: 2 }, "transformer.h."],
  ["bert", sizes, "encoder.layer."],
])("%s: layers beyond those of the config are named, others and other tensors are not", (model_type, config, stem) => {
  const spec = readModelSpec({ ...config, model_type }, "config.json");
  const names = [
    `${stem}0.a`,
    `${stem}11.a`,
    `${stem}2.b`,
    `${stem}2.c`,
    `${stem}x.a`,
    "lm_head.weight",
    "experts.7.a",
  ];
  expect(surplusLayers(spec, names)).toEqual([`${stem}2`, `${stem}11`]);
});

import type { Family } from "../family.js";
import { bert } from "./bert.js";
import { deepseekV3 } from "./deepseekV3.js";
import { gemma2 } from "./gemma2.js";
import { gemma3 } from "./gemma3.js";
import { gpt2 } from "./gpt2.js";
import { gptNeox } from "./gptNeox.js";
import { gptOss } from "./gptOss.js";
import { llama } from "./llama.js";
import { mistral } from "./mistral.js";
import { mixtral } from "./mixtral.js";
import { olmoe } from "./olmoe.js";
import { opt } from "./opt.js";
import { phi3 } from "./phi3.js";
import { qwen2 } from "./qwen2.js";
import { qwen3 } from "./qwen3.js";
import { qwen3Moe } from "./qwen3Moe.js";
import { smollm3 } from "./smollm3.js";
import { terraformer } from "./terraformer.js";

/** Every family that can be run. */
const all: readonly Family[] = [
  llama,
  mistral,
  mixtral,
  qwen2,
  qwen3,
  smollm3,
  phi3,
  gemma2,
  gemma3,
  gpt2,
  opt,
  gptNeox,
  bert,
  olmoe,
  qwen3Moe,
  gptOss,
  deepseekV3,
  terraformer,
];

/** `model_type` of config.json → its family. */
export const families: Readonly<Record<string, Family>> = Object.fromEntries(all.map((one) => [one.modelType, one]));

import type { CommandEntry } from "../command.js";

/** Every command, in the order in which help lists them. What one needs is loaded when it is chosen. */
export const commands: readonly CommandEntry[] = [
  {
    name: "demo",
    summary: "the whole path on the model that comes with rarefy, in a minute or two",
    load: () => import("./demo.js"),
  },
  {
    name: "inspect",
    summary: "what a model holds and what it would take to run, without loading it",
    load: () => import("./inspect.js"),
  },
  {
    name: "calibrate",
    summary: "make a model activation-sparse: find its thresholds on a text, write a model directory",
    load: () => import("./calibrate.js"),
  },
  {
    name: "exits",
    summary: "train early exit: which tokens need not run through all layers, write a model directory",
    load: () => import("./exits.js"),
  },
  {
    name: "prune",
    summary: "remove weights: single ones, keep:group, blocks, whole neurons or heads",
    load: () => import("./prune.js"),
  },
  { name: "quantize", summary: "round weights to integer codes with scales", load: () => import("./quantize.js") },
  {
    name: "compress",
    summary: "run a recipe: prune, quantise, factor, pool heads, drop layers, in any order that makes sense",
    load: () => import("./compress.js"),
  },
  { name: "share", summary: "let layers have the same weights, to be trained on", load: () => import("./share.js") },
  {
    name: "sweep",
    summary: "many candidates of compression, measured alike, in one table",
    load: () => import("./sweep.js"),
  },
  {
    name: "worker",
    summary: "make and measure the candidates of sweeps that share a queue, on as many machines as wanted",
    load: () => import("./worker.js"),
  },
  {
    name: "report",
    summary: "one HTML page of what sweeps and compressed models cost and give, and the same as JSON",
    load: () => import("./report.js"),
  },
  {
    name: "presets",
    summary: "the recipes that come with rarefy, and the methods they are made of",
    load: () => import("./presets.js"),
  },
  {
    name: "predict",
    summary: "train small predictors of which neurons of a ReLU model will be active",
    load: () => import("./predict.js"),
  },
  {
    name: "offload",
    summary: "write a model that runs in less memory than its weights take",
    load: () => import("./offload.js"),
  },
  {
    name: "export",
    summary: "write a model for other tools: GGUF, dense safetensors, compressed-tensors",
    load: () => import("./export.js"),
  },
  {
    name: "eval",
    summary: "perplexity of a model on a text, and how far it lies from another",
    load: () => import("./eval.js"),
  },
  { name: "run", summary: "generate text; without --prompt, a chat", load: () => import("./run.js") },
  {
    name: "serve",
    summary: "an OpenAI-compatible server for one or more models",
    load: () => import("./serve.js"),
  },
  {
    name: "classify",
    summary: "label texts with an encoder that classifies, and count how often it is right",
    load: () => import("./classify.js"),
  },
  { name: "embed", summary: "vectors of texts, from an encoder", load: () => import("./embed.js") },
  {
    name: "bench",
    summary: "prefill and decode speed, bytes per token, share of the memory bandwidth",
    load: () => import("./bench.js"),
  },
  {
    name: "train",
    summary: "train a language model from random weights, dense or sparse",
    load: () => import("./train.js"),
  },
  {
    name: "finetune",
    summary: "train a model on, dense, with the mask it has, or into a mask",
    load: () => import("./finetune.js"),
  },
  {
    name: "teach",
    summary: "have a teacher write the records that a student is trained on",
    load: () => import("./teach.js"),
  },
  { name: "merge", summary: "put an adapter into the weights of its model", load: () => import("./merge.js") },
  {
    name: "lorahub",
    summary: "make one LoRA adapter of several for a new task, from a few examples",
    load: () => import("./lorahub.js"),
  },
  {
    name: "experiment",
    summary: "train small models sparse by a published protocol, set the results beside the published ones",
    load: () => import("./experiment.js"),
  },
];

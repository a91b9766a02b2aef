// The jobs that check-kills runs: every one that writes, on a model of a quarter of a million weights.
import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const narrow = {
  hidden_size: 32,
  intermediate_size: 64,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 16,
};

/** Directories with the config of a narrow decoder and the tokenizer of the packaged model, and a short text. */
export function smallInputs(root, scratch) {
  const text = join(scratch, "text.txt");
  const packaged = join(root, "models/tiny-6m");
  const large = JSON.parse(readFileSync(join(packaged, "config.json"), "utf8"));
  const configIn = (directory, fields) => {
    mkdirSync(directory);
    for (const name of ["tokenizer.json", "tokenizer_config.json"]) cpSync(join(packaged, name), join(directory, name));
    writeFileSync(join(directory, "config.json"), JSON.stringify({ ...large, ...narrow, ...fields }));
    return directory;
  };
  writeFileSync(text, readFileSync(join(root, "models/text/calib.txt"), "utf8").slice(0, 3000));
  return {
    text,
    config: configIn(join(scratch, "config")),
    reluConfig: configIn(join(scratch, "relu-config"), { hidden_act: "relu" }),
    ...Object.fromEntries(["model", "relu", "adapter", "other"].map((name) => [name, join(scratch, name)])),
  };
}

/** The commands, outputs and all, that make what the jobs begin with. */
export function preparations({ config, reluConfig, text, model, relu, adapter, other }) {
  const training = ["--text", text, "--steps", "1", "--window", "16"];
  const lora = ["finetune", model, ...training, "--lora", "rank=2"];
  return [
    ["train", config, ...training, "-o", model],
    ["train", reluConfig, ...training, "-o", relu],
    [...lora, "-o", adapter],
    [...lora, "--seed", "2", "-o", other],
  ];
}

/**
 * @typedef {object} Job
 * @property {string} name
 * @property {string[]} args of rarefy, without the output
 * @property {string} [output] name of what is written; default "out"
 * @property {string[]} [before] makes an earlier result first, which the job replaces by force
 * @property {true} [hub] the output is the cache of a download
 * @property {true} [once] a file that is finished is not made again without --force
 * @property {true} [keepsParts] what is finished lies in the output at once, and the same command goes on from it
 */

/** @returns {Job[]} */
export function killedJobs({ config, text, model, relu, adapter, other }) {
  const window = ["--window", "16"];
  const calibration = [...window, "--calibration-windows", "4", "--threads", "1"];
  const training = ["--text", text, ...window, "--batch", "1", "--warmup", "0", "--save-every", "2"];
  const calibrate = ["calibrate", model, "--text", text, ...calibration];
  const prune = ["prune", model, "--method", "magnitude", "--sparsity", "0.5", "--threads", "1"];
  const recipes = ["--recipe", "magnitude-50", "--sparsity", "0.3,0.6"];
  return [
    { name: "calibrate", args: calibrate },
    { name: "calibrate over a result", args: [...calibrate, "--force"], before: prune },
    { name: "compress", args: ["compress", model, "--recipe", "sparsegpt-2:4-q8", "--calib", text, ...calibration] },
    { name: "prune", args: prune },
    { name: "prune over a result", args: [...prune, "--force"], before: calibrate },
    { name: "quantize", args: ["quantize", model, "--method", "rtn", "--bits", "8", "--threads", "1"] },
    {
      name: "sweep",
      keepsParts: true,
      args: ["sweep", model, ...recipes, "--text", text, "--max-windows", "1", ...calibration],
    },
    { name: "export gguf", args: ["export", model, "--format", "gguf"], output: "out.gguf" },
    { name: "export safetensors", args: ["export", model, "--format", "safetensors"] },
    { name: "train", args: ["train", config, ...training, "--steps", "5"] },
    { name: "finetune", args: ["finetune", model, ...training, "--steps", "5", "--method", "sr-ste"] },
    {
      name: "prune channels",
      args: [
        "prune",
        model,
        "--pattern",
        "channels",
        "--sparsity",
        "0.25",
        "--multiple-of",
        "4",
        "--calib",
        text,
        ...calibration,
      ],
    },
    { name: "exits", args: ["exits", model, "--text", text, ...calibration] },
    { name: "offload", args: ["offload", relu, "--calib", text, ...window, "--calibration-windows", "4"] },
    { name: "predict", args: ["predict", relu, "--calib", text, "--rank", "4", ...calibration] },
    { name: "merge", args: ["merge", model, "--adapter", adapter] },
    { name: "share", args: ["share", model, "--layers", "2"] },
    {
      name: "lorahub",
      args: ["lorahub", model, "--adapter", adapter, other, "--text", text, "--evaluations", "3", ...window],
    },
    {
      name: "teach",
      once: true,
      args: ["teach", model, "--text", text, "--limit", "4", "--max-tokens", "4"],
      output: "out.jsonl",
    },
    { name: "experiment", keepsParts: true, args: ["experiment", "run", "sinc", "--scale", "smoke", "--seeds", "1"] },
    { name: "hub download", args: ["inspect", "org/name"], output: "cache", hub: true, keepsParts: true },
  ];
}

// Every reader of files, over damaged ones. A reader gets a generator and works on one damaged input; what it throws is
// judged by the caller. The modules of the package are given, so that tests run on sources and the long run on what is built.

import { readFileSync } from "node:fs";
import { stackStores, stores } from "../../test/support/storeAs.mjs";
import { jobReaders } from "./jobReaders.mjs";
import { damagedJson, evilValue, fresh, json, mutateBytes, mutateValue, utf8 } from "./mutations.mjs";
import { partReaders } from "./partReaders.mjs";
import { requestReaders } from "./requestReaders.mjs";
import * as seeds from "./seeds.mjs";
import { task, taskDocument, taskFile } from "./taskSeeds.mjs";

/** A seeded generator of integers below n (mulberry32). */
export function generator(seed, index) {
  let state = (Math.imul(seed, 0x9e3779b1) ^ Math.imul(index + 1, 0x85ebca6b)) >>> 0;
  return (n) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * n);
  };
}

/**
 * The modules that readers are given, by the path of each in the package: folders that are import paths of it, and files.
 */
export const modulesOfReaders = {
  ...{ core: "core/index", io: "io/index", text: "text/index", model: "model/index", compress: "compress/index" },
  ...{ pipeline: "pipeline/index", runtime: "runtime/index", report: "report/index", server: "server/index" },
  ...{
    storedState: "train/storedState",
    tasks: "tasks/index",
    records: "train/data/records",
    prompts: "train/teaching/prompts",
    answerLog: "jobs/answerLog",
    rankMessages: "model/expertRanks/messages",
    streamLink: "jobs/streamLink",
    evaluationJob: "jobs/evaluationJob",
    experimentJob: "jobs/experimentJob",
    jobParts: "jobs/jobParts",
    sweepJob: "jobs/sweepJob",
    sweepMeasure: "jobs/sweepMeasure",
    version: "jobs/version",
  },
};

/**
 * @param modules those of `modulesOfReaders`
 * @returns name → reader
 */
export function readersOf(modules) {
  const { io, text, model, compress, report, tasks, storedState, records, prompts, answerLog } = modules;
  const { openCheckpoint, memoryFiles, memorySource, ggufFiles, readSafetensorsHeader, parseArtifact, parseJson } = io;

  /** Everything that a model directory is asked for, short of running it. */
  async function readModel(files) {
    const checkpoint = await openCheckpoint(files);
    try {
      for (const [name, { shape }] of checkpoint.tensors) {
        const bytes = await checkpoint.read(name);
        if (bytes.byteLength > 1e6)
          throw new Error(`${name} [${shape}] has ${bytes.byteLength} bytes, more than the file`);
      }
      await model.describeDecoder(checkpoint);
    } finally {
      await checkpoint.close();
    }
  }
  const modelFiles = (entries) => memoryFiles("model", new Map(Object.entries(entries)));
  const plainParts = seeds.safetensorsParts(seeds.plain);
  const plainFile = fresh(seeds.safetensorsFile(plainParts.header, plainParts.data));
  const goodConfig = json(seeds.configs[0]);
  const damagedWeights = ({ header, data }, random) =>
    fresh(
      random(3) > 0
        ? seeds.safetensorsFile(mutateValue(header, random), data)
        : mutateBytes(seeds.safetensorsFile(header, data), random),
    );
  const parts = {
    compressed: seeds.safetensorsParts(seeds.compressedTensors.tensors),
    packed: seeds.safetensorsParts(seeds.packed.tensors),
    factored: seeds.safetensorsParts(seeds.factored.tensors),
  };

  const quantized = Object.values({ ...stores, ...stackStores }).map((store) => {
    const shape = store.shape ?? (store === stackStores.mxfp4 ? [2, 32, 32] : [32, 64]);
    const length = shape.reduce((product, size) => product * size);
    const values = Float32Array.from({ length }, (_, i) => Math.sin(i * 12.9898));
    const tensors = store.parts("model.layers.0.mlp.up_proj.weight", { shape, values }).raw;
    const asMap = new Map(tensors.map(({ name, ...tensor }) => [name, tensor]));
    return { record: store.record, parts: seeds.safetensorsParts(asMap) };
  });

  async function readTokenizer(files, words = "The old man of the sea, 1952!\n  don't") {
    const tokenizer = await text.loadTokenizer(files);
    const ids = tokenizer.encode(words);
    tokenizer.decode(ids);
    tokenizer.decode([0, 3, 299, 5000]);
  }

  async function renderTemplate(files) {
    const template = await text.loadChatTemplate(files);
    const messages = [
      { role: "system", content: "be kind" },
      { role: "user", content: "hello" },
    ];
    template?.render(messages, { addGenerationPrompt: true });
  }

  /** A right model with some more files, opened. */
  async function withModel(entries, use) {
    const all = { "config.json": goodConfig, "model.safetensors": plainFile, ...entries };
    const checkpoint = await openCheckpoint(modelFiles(all));
    try {
      const { config } = await model.describeDecoder(checkpoint);
      return await use(checkpoint, config.spec);
    } finally {
      await checkpoint.close();
    }
  }
  const once = (make) => {
    let made;
    return () => {
      made ??= make();
      return made;
    };
  };
  const bundles = once(() =>
    withModel({}, async (checkpoint, spec) => {
      const shape = { weights: "bf16", layout: "inputs", bundled: true };
      const parts = [];
      const sink = { write: async (bytes) => void parts.push(...bytes) };
      const { byteLength } = await model.writeOffloaded(checkpoint, spec, shape, sink, () => undefined);
      return { description: { offload: 1, ...shape, byteLength, counted: false }, bytes: Uint8Array.from(parts) };
    }),
  );
  const predictorFiles = once(() =>
    withModel({}, async (_, { blocks, hiddenSize: inputs }) => {
      const files = new Map();
      const [rank, neurons] = [4, seeds.configs[0].intermediate_size];
      const zeros = (count) => new Float32Array(count);
      const layer = {
        rank,
        inputs,
        neurons,
        down: zeros(rank * inputs),
        up: zeros(neurons * rank),
        bias: zeros(neurons),
      };
      const found = { recall: 1, precision: 0.5, predictedShare: 0.25 };
      const description = {
        predictors: 1,
        rank,
        from: "own",
        textSha256: "0".repeat(64),
        layers: blocks.map(() => found),
      };
      const add = async (name, bytes) => void files.set(name, bytes);
      await model.writePredictors(io.memorySinks(files), add, { description, layers: blocks.map(() => layer) });
      return files;
    }),
  );
  const golden = (name) => new Uint8Array(readFileSync(new URL(`../../test/golden/lm-eval/${name}`, import.meta.url)));
  const parquetFiles = ["nested.parquet", "classes.test.parquet"].map(golden);
  /** Reads a task and one file of documents, and writes the prompts. */
  async function askTask(file, documents, ending = "jsonl") {
    const entries = new Map([
      ["task.yaml", utf8(file)],
      [`damaged/test.${ending}`, documents],
    ]);
    const files = tasks.memoryTaskFiles("tasks", entries);
    await tasks.prepareTasks(await tasks.readTasks(files, ["task.yaml"]), { tasks: files });
  }

  return {
    config: (random) =>
      readModel(
        modelFiles({
          "config.json": damagedJson(seeds.configs[random(seeds.configs.length)], random),
          "model.safetensors": plainFile,
        }),
      ),
    generationConfig: (random) =>
      readModel(
        modelFiles({
          "config.json": goodConfig,
          "generation_config.json": damagedJson(seeds.generation, random),
          "model.safetensors": plainFile,
        }),
      ),
    safetensorsHeader: (random) =>
      readSafetensorsHeader(memorySource("model.safetensors", damagedWeights(plainParts, random))),
    safetensors: (random) =>
      readModel(modelFiles({ "config.json": goodConfig, "model.safetensors": damagedWeights(plainParts, random) })),
    index: (random) => {
      const names = Object.keys(plainParts.header).filter((name) => name !== "__metadata__");
      const index = {
        metadata: { total_size: 1 },
        weight_map: Object.fromEntries(names.map((name) => [name, "a.safetensors"])),
      };
      return readModel(
        modelFiles({
          "config.json": goodConfig,
          "model.safetensors.index.json": damagedJson(index, random),
          "a.safetensors": plainFile,
        }),
      );
    },
    /** The record of factors or the parts that it names, one of them damaged. */
    factors: (random) => {
      const { header, data } = parts.factored;
      const ofRecord = random(2) === 0;
      return readModel(
        modelFiles({
          "config.json": goodConfig,
          "rarefy.json": ofRecord ? damagedJson(seeds.factored.artifact, random) : json(seeds.factored.artifact),
          "model.safetensors": ofRecord
            ? fresh(seeds.safetensorsFile(header, data))
            : damagedWeights(parts.factored, random),
        }),
      );
    },
    rarefyJson: async (random) => {
      const artifact = damagedJson(seeds.packed.artifact, random);
      const files = modelFiles({
        "config.json": goodConfig,
        "rarefy.json": artifact,
        "model.safetensors": fresh(seeds.safetensorsFile(parts.packed.header, parts.packed.data)),
      });
      await readModel(files);
      const run = report.runOfArtifact(parseArtifact(parseJson(artifact, "rarefy.json"), "rarefy.json"), "d", "n", 1);
      await report.reportPage({ rarefyReport: 1, runs: [run] });
    },
    packed: (random) =>
      readModel(
        modelFiles({
          "config.json": goodConfig,
          "rarefy.json": json(seeds.packed.artifact),
          "model.safetensors": damagedWeights(parts.packed, random),
        }),
      ),
    compressedTensors: (random) => {
      const config =
        random(3) === 0 ? damagedJson(seeds.compressedTensors.config, random) : json(seeds.compressedTensors.config);
      return readModel(
        modelFiles({ "config.json": config, "model.safetensors": damagedWeights(parts.compressed, random) }),
      );
    },
    quantized: (random) => {
      const { record, parts } = quantized[random(quantized.length)];
      const config = { ...seeds.configs[0], quantization_config: record };
      return readModel(
        modelFiles({
          "config.json": random(3) === 0 ? damagedJson(config, random) : json(config),
          "model.safetensors": damagedWeights(parts, random),
        }),
      );
    },
    gguf: async (random) => {
      const file =
        random(3) > 0
          ? seeds.ggufFile(mutateValue(seeds.gguf, random))
          : mutateBytes(seeds.ggufFile(seeds.gguf), random);
      const files = await ggufFiles("m.gguf", async () => memorySource("m.gguf", fresh(file)));
      await readModel(files);
      await readTokenizer(files);
      await renderTemplate(files);
    },
    ggufSentencePiece: async (random) => {
      const metadata = { ...seeds.gguf.metadata, "tokenizer.ggml.model": [8, "llama"] };
      const file = seeds.ggufFile(mutateValue({ ...seeds.gguf, metadata }, random));
      const files = await ggufFiles("m.gguf", async () => memorySource("m.gguf", fresh(file)));
      await readTokenizer(files, "ab");
    },
    tokenizer: (random) =>
      readTokenizer(
        modelFiles({
          "tokenizer.json": damagedJson(seeds.tokenizer, random),
          "tokenizer_config.json": json(seeds.tokenizerConfig),
        }),
      ),
    tokenizerConfig: async (random) => {
      const files = modelFiles({
        "tokenizer.json": json(seeds.tokenizer),
        "tokenizer_config.json": damagedJson(seeds.tokenizerConfig, random),
      });
      await readTokenizer(files);
      await renderTemplate(files);
    },
    chatTemplate: (random) => {
      const bytes = mutateBytes(utf8(seeds.tokenizerConfig.chat_template), random);
      return renderTemplate(modelFiles({ "tokenizer_config.json": json({}), "chat_template.jinja": fresh(bytes) }));
    },
    recipe: (random) => {
      const damaged =
        random(2) === 0
          ? String(mutateBytes(utf8(seeds.recipe), random))
          : JSON.stringify(
              mutateValue(
                {
                  version: 1,
                  calibration: { windows: 4, window: 64 },
                  stages: [
                    { type: "prune", method: "wanda", pattern: "2:4", ignore: ["**"] },
                    { type: "quantize", method: "rtn", options: { bits: 4 } },
                    { type: "maskUnits", macs: 0.5, tokens: 32.5 },
                  ],
                },
                random,
              ),
            );
      return compress.parseRecipeText(damaged, "recipe.yaml");
    },
    sweep: async (random) => {
      const raw = parseJson(damagedJson(seeds.sweep, random), "sweep.json");
      const data = { rarefyReport: 1, runs: [report.runOfSweep(raw, "d", "sweep.json")] };
      await report.reportPage(data);
      await report.reportJson(data);
    },
    task: async (random) => {
      const file =
        random(2) === 0 ? String(mutateBytes(utf8(taskFile), random)) : JSON.stringify(mutateValue(task, random));
      await askTask(file, json(taskDocument));
    },
    taskDocuments: (random) =>
      askTask(
        JSON.stringify(task),
        random(4) === 0 ? fresh(mutateBytes(json(taskDocument), random)) : damagedJson(taskDocument, random),
      ),
    taskParquet: (random) => {
      const good = parquetFiles[random(parquetFiles.length)];
      return askTask(JSON.stringify(task), fresh(mutateBytes(good, random)), "parquet");
    },
    trainingLog: async (random) => {
      const lines = seeds.trainingLog.map((record) =>
        JSON.stringify(random(3) === 0 ? mutateValue(record, random) : record),
      );
      const log = random(4) === 0 ? String(mutateBytes(utf8(lines.join("\n")), random)) : lines.join("\n");
      const training = report.readTrainingLog(log, "training.jsonl");
      const run = report.runOfArtifact({ rarefy: 1 }, "d", "n", 1);
      run.candidates[0].training = training;
      await report.reportPage({ rarefyReport: 1, runs: [run] });
    },
    records: (random) => {
      const line = { prompt: "a", response: "b", rationale: "c", demonstrations: [{ prompt: "d", response: "e" }] };
      const lines = [line, { prompt: "", response: "f" }].map((record) =>
        JSON.stringify(random(2) === 0 ? mutateValue(record, random) : record),
      );
      const text = random(3) === 0 ? String(mutateBytes(utf8(lines.join("\n")), random)) : lines.join("\n");
      return records.parseRecords(text, "records.jsonl");
    },
    prompts: (random) => {
      const line = { prompt: "a", demonstrations: [{ prompt: "d", response: "e" }] };
      const lines = [line, { prompt: "b" }].map((prompt) =>
        JSON.stringify(random(2) === 0 ? mutateValue(prompt, random) : prompt),
      );
      const text = random(3) === 0 ? String(mutateBytes(utf8(lines.join("\n")), random)) : lines.join("\n");
      return prompts.parsePrompts(text, "prompts.jsonl");
    },
    answerLog: (random) => {
      const outcomes = [{ prompt: "a", response: "b" }, { leftOut: "c" }];
      const whole = answerLog.headLine("0".repeat(64)) + outcomes.map((o, i) => answerLog.outcomeLine(i, o)).join("");
      const lines = whole
        .split("\n")
        .map((line) => (line !== "" && random(3) === 0 ? mutateValue(JSON.parse(line), random) : line));
      const text = lines.map((line) => (typeof line === "string" ? line : JSON.stringify(line))).join("\n");
      return answerLog.parseAnswerLog(
        random(3) === 0 ? mutateBytes(utf8(text), random) : utf8(text),
        "answers.jsonl",
        2,
      );
    },
    jobState: (random) => {
      const state = {
        rarefyState: 1,
        state: {
          entries: {
            run: { entries: { step: 5, best: { number: "NaN" }, weights: { tensor: "model.norm.weight" } } },
            done: true,
          },
        },
      };
      return storedState.readState(
        modelFiles({
          "state.json": damagedJson(state, random),
          "model.safetensors": random(3) === 0 ? damagedWeights(plainParts, random) : plainFile,
        }),
      );
    },
    offloaded: async (random) => {
      const { description, bytes } = await bundles();
      await withModel(
        {
          "offload.json": damagedJson(description, random),
          "offload.bin": random(3) === 0 ? bytes.subarray(0, random(bytes.byteLength + 1)) : bytes,
        },
        async (checkpoint, spec) => (await model.openOffloaded(checkpoint, spec))?.source.close(),
      );
    },
    predictors: async (random) => {
      const files = await predictorFiles();
      const both = random(2) === 0;
      const damaged = (name) => (both ? fresh(mutateBytes(files.get(name), random)) : files.get(name));
      await withModel(
        {
          "predictors.json": damagedJson(JSON.parse(new TextDecoder().decode(files.get("predictors.json"))), random),
          "predictors.safetensors": damaged("predictors.safetensors"),
        },
        (checkpoint, spec) => model.readPredictors(checkpoint, spec),
      );
    },
    values: (random) => {
      // Errors that quote whatever they are given.
      parseArtifact(evilValue(random), "rarefy.json");
    },
    ...partReaders(modules),
    ...requestReaders(modules),
    ...jobReaders(modules),
  };
}

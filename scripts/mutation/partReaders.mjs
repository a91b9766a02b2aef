// Readers of what goes with models or stands for a part of one: adapters, slow tokenizers, records of quantisation, defaults of
// sampling, what a job left, what ranks of experts send each other.

import { stores } from "../../test/support/storeAs.mjs";
import { damagedJson, fresh, json, mutateBytes, mutateValue, utf8 } from "./mutations.mjs";
import * as partSeeds from "./partSeeds.mjs";
import * as seeds from "./seeds.mjs";

const filesOf = (entries) => new Map(Object.entries(entries));
const plainParts = seeds.safetensorsParts(seeds.plain);
const plainFile = fresh(seeds.safetensorsFile(plainParts.header, plainParts.data));

const damagedFile = ({ header, data }, random) =>
  fresh(
    random(3) > 0
      ? seeds.safetensorsFile(mutateValue(header, random), data)
      : mutateBytes(seeds.safetensorsFile(header, data), random),
  );

/** @returns readers of the modules of `modulesOfReaders` */
export function partReaders({ io, text, model, compress, pipeline, runtime, rankMessages, streamLink }) {
  const modelFiles = (entries) => io.memoryFiles("model", filesOf(entries));
  const plainModel = () =>
    io.openCheckpoint(modelFiles({ "config.json": json(seeds.configs[0]), "model.safetensors": plainFile }));

  const adapters = partSeeds.adapters.map(({ config, tensors }) => ({
    config,
    parts: seeds.safetensorsParts(tensors),
  }));
  let spec;

  /** GPTQ and AWQ with their record beside config.json, as their tools left it. */
  const recorded = ["gptq 4 bits", "awq"].map((id) => {
    const { record, parts } = stores[id];
    const values = Float32Array.from({ length: 2048 }, (_, i) => Math.sin(i * 12.9898));
    const { raw } = parts("model.layers.0.mlp.up_proj.weight", { shape: [32, 64], values });
    const { header, data } = seeds.safetensorsParts(new Map(raw.map(({ name, ...tensor }) => [name, tensor])));
    const file =
      id === "awq"
        ? { name: "quant_config.json", fields: { w_bit: 4, q_group_size: record.group_size, zero_point: true } }
        : { name: "quantize_config.json", fields: record };
    return { ...file, weights: fresh(seeds.safetensorsFile(header, data)) };
  });

  async function tokenize(entries) {
    const tokenizer = await text.loadTokenizer(modelFiles(entries));
    tokenizer.decode(tokenizer.encode("the old man of the sea, 1952!\n  don't"));
    tokenizer.decode([0, 3, 299, 5000]);
  }

  let started;
  /** A compression that was stopped before its end, and what goes on with it. */
  async function startedJob() {
    const checkpoint = await plainModel();
    const stages = [
      { type: "prune", method: "magnitude", pattern: { type: "unstructured", sparsity: 0.3, scope: "global" } },
      { type: "prune", method: "wanda", pattern: 0.5 },
    ];
    const options = {
      recipe: compress.parseRecipe({ version: 1, calibration: { windows: 2, window: 8 }, stages }, "recipe"),
      calibration: { tokens: Uint32Array.from({ length: 16 }, (_, i) => 2 + ((i * 7) % 200)), sha256: "ab".repeat(32) },
      ...{ store: "packed", backend: "reference", version: "0" },
    };
    const plan = await pipeline.planCompression(checkpoint, options);
    const run = (workspace) => pipeline.runCompression(checkpoint, plan, { workspace, companions: [] }, options);
    const left = new Map();
    const workspace = pipeline.memoryWorkspace(left);
    const stopping = {
      ...workspace,
      sinks: {
        create(name) {
          if (name === "config.json") throw new Error("stopped here");
          return workspace.sinks.create(name);
        },
      },
    };
    await run(stopping).catch(() => {});
    return { left, run };
  }

  const work = {
    ...{ kind: "work", id: 1, layer: 0, rows: 2, thresholds: [[0.1, 0.2], null] },
    ...{ x: new Float32Array(8).fill(0.5), slotRows: Uint32Array.of(0, 1, 1), slotExperts: Uint32Array.of(0, 0, 1) },
  };
  const answers = [
    { kind: "ready", rank: 1, ranks: 2, model: { layers: 1, hiddenSize: 4, experts: 2 } },
    { kind: "result", id: 1, y: new Float32Array(12) },
    { kind: "failure", id: 1, message: "no" },
  ];
  /** Either the header of a frame is damaged or its bytes are. */
  const damagedFrame = (frame, random) => {
    if (random(3) === 0) return fresh(mutateBytes(frame, random));
    const length = new DataView(frame.buffer).getUint32(0, true);
    const header = utf8(
      JSON.stringify(mutateValue(JSON.parse(new TextDecoder().decode(frame.subarray(4, 4 + length))), random)),
    );
    const padded = Buffer.concat([header, Buffer.alloc((4 - (header.length % 4)) % 4, 0x20)]);
    const size = Buffer.alloc(4);
    size.writeUInt32LE(padded.length);
    return fresh(Buffer.concat([size, padded, frame.subarray(4 + length)]));
  };

  return {
    adapter: async (random) => {
      const { config, parts } = adapters[random(adapters.length)];
      const whole = fresh(seeds.safetensorsFile(parts.header, parts.data));
      const damagesConfig = random(2) === 0;
      const adapter = await io.readAdapter(
        modelFiles({
          "adapter_config.json": damagesConfig ? damagedJson(config, random) : json(config),
          "adapter_model.safetensors": damagesConfig ? whole : damagedFile(parts, random),
        }),
      );
      spec ??= (await model.describeDecoder(await plainModel())).config.spec;
      model.adaptationsOf(spec, adapter);
    },
    quantizationRecord: async (random) => {
      const { name, fields, weights } = recorded[random(recorded.length)];
      const checkpoint = await io.openCheckpoint(
        modelFiles({
          "config.json": json(seeds.configs[0]),
          [name]: damagedJson(fields, random),
          "model.safetensors": weights,
        }),
      );
      for (const tensor of checkpoint.tensors.keys()) await checkpoint.readFloat32(tensor);
    },
    sentencePiece: (random) =>
      tokenize({
        "tokenizer.model": fresh(
          random(2) === 0
            ? partSeeds.sentencePieceFile(mutateValue(partSeeds.sentencePiece, random))
            : mutateBytes(partSeeds.sentencePieceFile(partSeeds.sentencePiece), random),
        ),
        "tokenizer_config.json": random(3) === 0 ? damagedJson(seeds.tokenizerConfig, random) : json({}),
      }),
    vocabulary: (random) => {
      const { vocab, merges } = seeds.tokenizer.model;
      const lines = `#version: 0.2\n${merges.join("\n")}\n`;
      const damagesMerges = random(3) === 0;
      return tokenize({
        "vocab.json": damagesMerges ? json(vocab) : damagedJson(vocab, random),
        "merges.txt": damagesMerges ? fresh(mutateBytes(utf8(lines), random)) : utf8(lines),
        "tokenizer_config.json": json({ tokenizer_class: "GPT2Tokenizer", bos_token: "<s>" }),
      });
    },
    samplingDefaults: (random) =>
      runtime.samplingDefaults(modelFiles({ "generation_config.json": damagedJson(seeds.generation, random) })),
    startedCompression: async (random) => {
      started ??= startedJob();
      const { left, run } = await started;
      const names = [...left.keys()];
      const name = names[random(names.length)];
      const bytes = left.get(name);
      const isJson = name.endsWith(".json");
      const damaged = isJson
        ? damagedJson(JSON.parse(new TextDecoder().decode(bytes)), random)
        : fresh(mutateBytes(bytes, random));
      const files = new Map(left).set(name, damaged);
      if (random(8) === 0) files.delete(names[random(names.length)]);
      await run(pipeline.memoryWorkspace(files));
    },
    rankMessage: (random) => {
      if (random(2) === 0) rankMessages.decodeWork(damagedFrame(rankMessages.encodeWork(work), random), 4);
      else {
        const answer = answers[random(answers.length)];
        rankMessages.decodeAnswer(damagedFrame(rankMessages.encodeAnswer(answer), random));
      }
    },
    rankStream: async (random) => {
      const frames = answers.map((answer) => rankMessages.encodeAnswer(answer));
      const led = frames.flatMap((frame) => [Buffer.from(Uint32Array.of(frame.length).buffer), frame]);
      const bytes = mutateBytes(Buffer.concat(led), random);
      async function* pieces() {
        for (let at = 0; at < bytes.length; ) {
          const length = 1 + random(50);
          yield fresh(bytes.subarray(at, at + length));
          at += length;
        }
      }
      const output = { destroyed: false, writableEnded: false, write() {}, end() {}, on() {} };
      const link = streamLink.streamLink(pieces(), output);
      const received = [];
      const reason = await new Promise((resolve) => link.listen((frame) => received.push(frame), resolve));
      if (reason !== undefined) throw reason;
      for (const frame of received) rankMessages.decodeAnswer(frame);
    },
  };
}

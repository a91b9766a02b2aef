import { stat } from "node:fs/promises";
import { Option } from "commander";
import {
  type BlockGates,
  findStep,
  type HeadSpec,
  type ModelConfig,
  type ModelSpec,
  parseModelConfig,
  type RopeSpec,
  tensorsOf,
} from "../../arch/index.js";
import { UsageError } from "../../core/index.js";
import type { Artifact, Checkpoint, Compression, LocalModelFiles } from "../../io/index.js";
import { compressionOf, isJsonObject, openCheckpoint, parseJson, readArtifact } from "../../io/index.js";
import { readText, resolveModel } from "../../io/index.node.js";
import {
  countParameters,
  type DecoderDescription,
  describeDecoder,
  kvBytesPerPosition,
  type MatrixChoice,
  type ParameterCounts,
  packedMatrixBytes,
  type Structure,
  structures,
} from "../../model/index.js";
import { isCoded, keepsCodes } from "../../model/internal.js";
import { type WeightFormatId, weightFormats } from "../../pack/index.js";
import { byteLengthOf } from "../../tensor/index.js";
import { loadChatTemplate } from "../../text/index.js";
import type { CommandDefinition, CommonOptions, Context } from "../command.js";
import { bytes, count, facts, percent, printable, table } from "../format.js";
import { modelArgument, type WeightsOption, weightsOption } from "../options.js";
import { defaultThreads } from "../threads.js";
import { openTokenizer } from "../tokenizer.js";

interface InspectOptions extends CommonOptions, WeightsOption {
  tensors?: boolean;
  structure?: Structure;
}

/** What one weight format would take. */
interface FormatRow {
  weights: WeightFormatId;
  packedBytes: number;
  /** Weights that a decoded token reads, dense and with the thresholds of rarefy.json. */
  bytesPerToken: number;
  sparseBytesPerToken?: number;
  /** Packed weights with keys and values of one sequence of `maxPositions` tokens. */
  memoryBytes: number;
  /** Of the matrices that are stored as codes, those whose codes stand in memory as they are; the others are rounded anew. */
  codesKept?: number;
}

export const command: CommandDefinition<InspectOptions> = {
  description:
    "Reads the config, the headers of the weight files, the tokenizer and rarefy.json, and tells the sizes in every weight " +
    "format: packed, read per decoded token, and in memory with a full context. Of a config.json alone it tells what follows " +
    "from that: parameters, those that work for one token, and bytes.",
  arguments: [modelArgument],
  options: [
    new Option("--tensors", "list every tensor"),
    new Option("--structure <id>", "load the weights and tell how each matrix would lie in memory, and why").choices(
      structures,
    ),
    weightsOption(),
  ],
  examples: [
    "rarefy inspect tiny-6m",
    "rarefy inspect HuggingFaceTB/SmolLM2-135M --tensors",
    "rarefy inspect deepseek-v3/config.json",
  ],
  async run(context, options, [argument]) {
    if (/\.json$/i.test(argument)) return inspectConfig(context, argument, options);
    const files = await resolveModel(argument, context);
    const config = files.pathOf("config.json");
    if (config !== undefined && !(await files.names()).some(holdsWeights))
      return inspectConfig(context, config, options);
    const checkpoint = await openCheckpoint(files);
    try {
      const described = await describeDecoder(checkpoint);
      const artifact = await readArtifact(checkpoint);
      const document = {
        model: files.location,
        ...factsOf(described, checkpoint),
        bytesOnDisk: await sizeOf(files),
        quantizedBy: checkpoint.quantizedBy ?? null,
        dtypes: dtypesOf(checkpoint),
        tokenizer: await describeTokenizer(context, checkpoint),
        formats: await formatRows(checkpoint, described, artifact),
        artifact: artifact === undefined ? null : summary(artifact),
        ...(options.structure && { matrices: await chosen(files, options, context) }),
        ...(options.tensors && {
          tensors: [...checkpoint.tensors.values()].map(({ name, dtype, shape }) => ({ name, dtype, shape })),
        }),
      };
      context.print(render(document));
      return document;
    } finally {
      await checkpoint.close();
    }
  },
};

/** Files of weights, also of kinds that are not read, and lists of them. */
const holdsWeights = (name: string): boolean => /\.(?:safetensors|gguf|bin|pth?|index\.json)$/.test(name);

/** What follows from the description of a model, and of which tensors are pairs of low rank. */
function factsOf({ config: { spec, ...config } }: DecoderDescription, { tensors }: Pick<Checkpoint, "tensors">) {
  return {
    config,
    ropes: ropesOf(spec),
    head: headOf(spec),
    parameters: countParameters(spec, tensors),
    kvBytesPerPosition: kvBytesPerPosition({ spec }),
  };
}

/** What a config.json alone tells: the sizes of a model whose weights are elsewhere. */
async function inspectConfig(context: Context, file: string, { tensors, structure }: InspectOptions) {
  if (structure !== undefined) throw new UsageError("--structure looks at weights; give the directory of the model");
  const raw = parseJson(new TextEncoder().encode(await readText(file)), file);
  // How weights are stored changes nothing of what a model is.
  const given = isJsonObject(raw) ? { ...raw, quantization_config: undefined } : raw;
  const description = { config: parseModelConfig(given, file) };
  const nothing = { tensors: new Map() };
  const document = {
    model: file,
    ...factsOf(description, nothing),
    formats: await formatRows(nothing, description, undefined),
    ...(tensors && {
      tensors: tensorsOf(description.config.spec).map(({ name, shape }) => ({ name, dtype: "", shape })),
    }),
  };
  context.print(render(document));
  return document;
}

interface InspectDocument {
  model: string;
  /** Without the description. */
  config: Omit<ModelConfig, "spec">;
  /** How positions turn queries and keys, each way once, with the number of layers; none where they are learned. */
  ropes: { rope: RopeSpec; layers: number }[];
  head: { kind: HeadSpec["kind"]; labels?: readonly string[] };
  parameters: ParameterCounts;
  bytesOnDisk?: number;
  /** How another tool has quantised the weights; null where none has. */
  quantizedBy?: string | null;
  /** By dtype, or by encoding where tensors are encoded. */
  dtypes?: { dtype: string; tensors: number; bytes: number }[];
  tokenizer?: { tokens: number; special: number; chatTemplate: boolean } | null;
  kvBytesPerPosition: number;
  formats: FormatRow[];
  artifact?: ReturnType<typeof summary> | null;
  matrices?: readonly MatrixChoice[];
  tensors?: { name: string; dtype: string; shape: readonly number[] }[];
}

/** What loading the model chooses on this machine. */
async function chosen(files: LocalModelFiles, { weights, structure }: InspectOptions, context: Context) {
  const { signal, onProgress } = context;
  const { openModel } = await import("../../pipeline/index.js");
  using opened = await openModel(files, { weights, structure, threads: defaultThreads(), signal, onProgress });
  return opened.model.choices;
}

async function sizeOf(files: LocalModelFiles): Promise<number> {
  let total = 0;
  for (const name of await files.names()) {
    const path = files.pathOf(name);
    if (path !== undefined) total += (await stat(path)).size;
  }
  return total;
}

function dtypesOf(checkpoint: Checkpoint): NonNullable<InspectDocument["dtypes"]> {
  const found = new Map<string, { dtype: string; tensors: number; bytes: number }>();
  for (const tensor of checkpoint.tensors.values()) {
    const dtype = tensor.encoding ?? tensor.dtype;
    const entry = found.get(dtype) ?? { dtype, tensors: 0, bytes: 0 };
    entry.tensors++;
    entry.bytes += tensor.storedBytes ?? byteLengthOf(tensor);
    found.set(dtype, entry);
  }
  return [...found.values()];
}

const tokenizerFiles = ["tokenizer.json", "tokenizer.model", "vocab.json"];

/** null without a tokenizer: such a model can be measured but not talked to. */
async function describeTokenizer(
  context: Context,
  { files }: Checkpoint,
): Promise<InspectDocument["tokenizer"] | null> {
  const sources = await Promise.all(tokenizerFiles.map((name) => files.open(name)));
  await Promise.all(sources.map((source) => source?.close()));
  if (sources.every((source) => source === undefined)) return null;
  const tokenizer = await openTokenizer(context, files);
  const chatTemplate = (await loadChatTemplate(files)) !== undefined;
  return { tokens: tokenizer.vocabSize, special: tokenizer.specialIds.size, chatTemplate };
}

async function formatRows(
  checkpoint: Pick<Checkpoint, "tensors">,
  description: DecoderDescription,
  artifact: Artifact | undefined,
): Promise<FormatRow[]> {
  const { config } = description;
  const cacheBytes = kvBytesPerPosition(config) * config.maxPositions;
  const sparsity = artifact?.activationSparsity;
  const saved = sparsity && (await import("../../pipeline/index.js")).expectedBytesSaved;
  const coded = [...checkpoint.tensors.values()].filter(isCoded);
  return (Object.keys(weightFormats) as WeightFormatId[]).map((weights) => {
    const { perToken, loaded } = packedMatrixBytes(checkpoint, config.spec, weights);
    const row: FormatRow = { weights, packedBytes: loaded, bytesPerToken: perToken, memoryBytes: loaded + cacheBytes };
    if (coded.length > 0) row.codesKept = coded.filter((tensor) => keepsCodes(weights, tensor)).length;
    if (sparsity !== undefined && saved !== undefined) {
      row.sparseBytesPerToken = perToken - saved(description.config.spec, weights, sparsity);
    }
    return row;
  });
}

/** rarefy.json without the thresholds of single layers. */
function summary(artifact: Artifact) {
  const { weights, inference, activationSparsity, source, results } = artifact;
  const compression = compressionOf(artifact);
  const made = compression && { recipe: compression.recipe, zeros: zerosOf(compression) };
  const document = { weights, inference, source, results, recipe: made?.recipe, zeros: made?.zeros };
  if (activationSparsity === undefined) return { ...document, activationSparsity: undefined };
  const { layers, ...settings } = activationSparsity;
  return { ...document, activationSparsity: { ...settings, layers: layers.length } };
}

/** Share of the compressed matrices' weights that are 0. */
function zerosOf({ layers }: Compression): number {
  const matrices = layers.flatMap(({ matrices }) => Object.values(matrices));
  const total = matrices.reduce((sum, { rows, cols }) => sum + rows * cols, 0);
  return matrices.reduce((sum, { rows, cols, sparsity }) => sum + sparsity * rows * cols, 0) / total;
}

/** "sparsegpt 2:4, gptq": the methods of a recipe's stages with what they were asked for. */
function recipeInWords(recipe: unknown): string {
  const stages = isJsonObject(recipe) && Array.isArray(recipe.stages) ? recipe.stages.filter(isJsonObject) : [];
  return stages.map(({ type, method }) => `${type}${method === undefined ? "" : ` by ${method}`}`).join(", ");
}

function render(document: InspectDocument): string {
  const { config, parameters, formats, matrices, tensors } = document;
  const lines = [
    printable(document.model),
    "",
    facts([
      ["architecture", inWords(document)],
      ["context", `${config.maxPositions} tokens, ${positionsInWords(document)}`],
      ["parameters", parametersInWords(parameters, config.experts !== undefined)],
      ...filesInWords(document),
    ]),
    "",
    table(
      [
        { title: "weights", cell: (row: FormatRow) => row.weights, align: "left" },
        { title: "packed", cell: (row) => bytes(row.packedBytes) },
        { title: "read per token\ndense", cell: (row) => bytes(row.bytesPerToken) },
        ...(formats[0].sparseBytesPerToken === undefined
          ? []
          : [{ title: "read per token\nsparse", cell: (row: FormatRow) => bytes(row.sparseBytesPerToken!) }]),
        { title: "memory with\nfull context", cell: (row) => bytes(row.memoryBytes) },
        ...(formats[0].codesKept === undefined
          ? []
          : [{ title: "matrices whose\ncodes are kept", cell: (row: FormatRow) => `${row.codesKept}` }]),
      ],
      formats,
    ),
    "",
    `Read per token: weights; attention adds ${bytes(document.kvBytesPerPosition)} for every position in the context.`,
  ];
  if (matrices !== undefined) {
    lines.push(
      "",
      table(
        [
          { title: "matrix", cell: (choice: MatrixChoice) => printable(choice.names.join(" + ")), align: "left" },
          { title: "not 0", cell: (choice) => percent(choice.density) },
          { title: "format", cell: (choice) => choice.format, align: "left" },
          { title: "why", cell: (choice) => choice.reason, align: "left" },
        ],
        matrices,
      ),
    );
  }
  if (tensors !== undefined) {
    lines.push(
      "",
      table(
        [
          { title: "tensor", cell: (tensor: (typeof tensors)[number]) => printable(tensor.name), align: "left" },
          { title: "dtype", cell: (tensor) => tensor.dtype, align: "left" },
          { title: "shape", cell: (tensor) => tensor.shape.join(" × "), align: "left" },
        ],
        tensors,
      ),
    );
  }
  return `${lines.join("\n")}\n`;
}

function inWords({ config, head }: InspectDocument): string {
  const heads =
    config.queryHeads === config.kvHeads
      ? `${config.queryHeads} heads of ${config.headDim}`
      : `${config.queryHeads} query and ${config.kvHeads} key/value heads of ${config.headDim}`;
  const windows = config.slidingWindows.filter((window) => window !== undefined);
  const extras = [
    config.attentionBias && "attention biases",
    config.experts !== undefined && `${config.experts.count} experts, ${config.experts.perToken} for a token`,
    config.blocks[0].gates !== undefined && gatesInWords(config.blocks[0].gates),
    config.mlpBias && "MLP biases",
    config.qkNorm && "normalised q and k",
    windows.length > 0 && `sliding window of ${windows[0]}${inLayers(windows.length, config.layers)}`,
    headInWords(head, config.tiedEmbeddings),
  ].filter((extra) => extra !== false);
  return `${config.modelType}: ${config.layers} layers, hidden ${config.hiddenSize}, MLP ${config.intermediateSize} (${config.activation}), ${heads}, ${extras.join(", ")}`;
}

/** Bytes are those of a token that takes all of them. */
const gatesInWords = ({ units, kind }: BlockGates): string => {
  const where = { block: "blocks", attention: "attention", mlp: "MLPs", sublayers: "attention and MLPs" }[units];
  return kind === "hard" ? `gates that let tokens past ${where}` : `gates that weigh ${where}`;
};

const headOf = ({ head }: ModelSpec): InspectDocument["head"] => ({
  kind: head.kind,
  ...(head.kind === "classifier" && { labels: head.labels }),
});

function headInWords({ kind, labels }: InspectDocument["head"], tiedEmbeddings: boolean): string {
  if (kind === "none") return "no head";
  if (labels !== undefined) return `${labels.length} labels`;
  return tiedEmbeddings ? "tied embeddings" : "separate output embeddings";
}

function ropesOf({ blocks }: ModelSpec): InspectDocument["ropes"] {
  const ways = new Map<string, InspectDocument["ropes"][number]>();
  for (const block of blocks) {
    const rope = findStep(block, "rotate")?.rope;
    if (rope === undefined) continue;
    const key = JSON.stringify(rope);
    ways.set(key, { rope, layers: (ways.get(key)?.layers ?? 0) + 1 });
  }
  return [...ways.values()];
}

function positionsInWords({ config, ropes }: InspectDocument): string {
  if (ropes.length === 0) return "learned positions";
  const bases = ropes.map(({ rope, layers }) => {
    const scaling = rope.type === "default" ? "" : `, scaled by ${rope.factor} (${rope.type})`;
    return `${rope.theta}${scaling}${inLayers(layers, config.layers)}`;
  });
  return `rotary base ${bases.join(" and ")}`;
}

/** Where not all of the layers are meant. */
const inLayers = (some: number, all: number): string => (some === all ? "" : ` in ${some} of ${all} layers`);

function parametersInWords({ total, active, activeExperts, ...kinds }: ParameterCounts, chooses: boolean): string {
  const names = {
    embedding: "embedding",
    attention: "attention",
    mlp: "MLP",
    experts: "experts",
    router: "routers",
    head: "head",
    vectors: "norms and biases",
  };
  const parts = (Object.keys(names) as (keyof typeof names)[])
    .filter((kind) => kinds[kind] > 0)
    .map((kind) => {
      const working = kind === "experts" ? ` (${count(activeExperts)} for a token)` : "";
      return `${names[kind]} ${count(kinds[kind])}${working}`;
    });
  const working = chooses ? `, ${count(active)} of them for a token` : "";
  return `${count(total)}${working}: ${parts.join(", ")}`;
}

/** What lies beside a config.json; nothing where that alone was looked at. */
function filesInWords(document: InspectDocument): [string, string][] {
  const { bytesOnDisk, quantizedBy, dtypes, tokenizer, artifact } = document;
  if (bytesOnDisk === undefined || dtypes === undefined) return [];
  return [
    ["on disk", onDiskInWords(bytesOnDisk, dtypes)],
    ...(quantizedBy == null ? [] : [["quantised by", quantizedBy] as [string, string]]),
    [
      "tokenizer",
      tokenizer == null
        ? "none"
        : `${tokenizer.tokens} tokens, ${tokenizer.special} special; ${tokenizer.chatTemplate ? "with" : "no"} chat template`,
    ],
    ["rarefy.json", artifactInWords(artifact ?? null)],
  ];
}

function onDiskInWords(bytesOnDisk: number, dtypes: NonNullable<InspectDocument["dtypes"]>): string {
  const tensors = dtypes.map((entry) => `${entry.tensors} tensors ${entry.dtype} (${bytes(entry.bytes)})`);
  return `${bytes(bytesOnDisk)}: ${tensors.join(", ")}`;
}

function artifactInWords(artifact: ReturnType<typeof summary> | null): string {
  if (artifact === null) return "none: an ordinary, dense checkpoint";
  const weights = artifact.weights === undefined ? "" : `runs in ${artifact.weights}; `;
  const { inference, activationSparsity: sparse } = artifact;
  const attends = Object.entries(inference ?? {}).map(([name, text]) => `--${name} ${text}; `);
  const ways = `${weights}${attends.join("")}`;
  const made = artifact.recipe === undefined ? "" : `${recipeInWords(artifact.recipe)}; `;
  const compressed = artifact.zeros === undefined ? "" : `${made}${percent(artifact.zeros, 1)} of the weights are 0; `;
  if (sparse === undefined) return `${ways}${compressed}all inputs are used`;
  const { method, sparsity, allocation, estimator, prefill, calibration } = sparse;
  const prompt = typeof prefill === "string" ? prefill : `dense for the first ${prefill.denseFirst} tokens`;
  return `${ways}${compressed}${method} at ${percent(sparsity)} activation sparsity, ${allocation} allocation, ${estimator} thresholds, prefill ${prompt}; calibrated on ${calibration.windows} windows of ${calibration.window} tokens`;
}

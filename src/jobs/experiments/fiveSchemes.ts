import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseRecipe, type RecipeInput } from "../../compress/index.js";
import { type JobOptions, ProblemsError, UsageError } from "../../core/index.js";
import { evaluateQuality, measureSpeed } from "../../eval/index.js";
import { type LocalModelFiles, type ModelFiles, openCheckpoint } from "../../io/index.js";
import { directoryFiles } from "../../io/index.node.js";
import { describeDecoder } from "../../model/index.js";
import { openModel } from "../../pipeline/index.js";
import { loadTokenizer, type TokenizedText, tokenizeText } from "../../text/index.js";
import { type Cell, type EngineDevice, type Experiment, type Scale, tokenizeDocuments } from "../../train/index.js";
import { compressToDirectory } from "../compressToDirectory.js";
import { shareLayersToDirectory } from "../shareLayersToDirectory.js";
import { trainToDirectory } from "../trainToDirectory.js";
import { type FiveSchemesProtocol, protocols } from "./fiveSchemesProtocol.js";
import { type Refusal, reportFiveSchemes, type SchemeResult } from "./fiveSchemesReport.js";
import { combinations, type Scheme, schemes } from "./schemes.js";
import { storedBytes, touched } from "./storedModel.js";

const textNames = { training: "train-books.txt.xz", calibration: "calib.txt", evaluation: "books-eval.txt" };

export const experiment: Experiment = {
  id: "five-schemes",
  title: "Five schemes of making a language model lighter",
  description:
    "Quantisation, sparsification, distillation, sharing and low rank on one checkpoint, each at two strengths and every two of them together: how small it becomes, what it costs in one shot and after the same training, what it touches, and how fast it decodes beside the dense model in the same run.",
  seeds: { smoke: 1, laptop: 1, gpu: 1 },
  texts: Object.values(textNames),
  usesModel: true,
  timed: true,
  plan: (scale, seeds, model) =>
    Array.from({ length: seeds }, (_, seed) =>
      Object.entries(all).map(([name, { scheme, level, how }]) => ({
        key: `${name.replaceAll(/[^a-z0-9]+/g, "-")}-seed${seed}`,
        seed,
        settings: { name, scheme, level, model, scale, how: JSON.stringify([how, protocols[scale]]) },
      })),
    ).flat(),
  run: measureCell,
  report: async (cells, scale) => reportFiveSchemes(cells, protocols[scale]),
};

/** Every cell by its name. */
const all: Readonly<Record<string, { scheme: string; level: string; how: Scheme }>> = {
  dense: { scheme: "dense", level: "", how: { weights: "bf16" } },
  ...Object.fromEntries(
    Object.entries(schemes).flatMap(([scheme, levels]) =>
      Object.entries(levels).map(([level, how]) => [`${scheme}, ${level}`, { scheme, level, how }]),
    ),
  ),
  ...Object.fromEntries(Object.entries(combinations).map(([scheme, how]) => [scheme, { scheme, level: "", how }])),
};

/** What a cell works with. */
interface Work {
  readonly source: LocalModelFiles;
  readonly folder: string;
  readonly protocol: FiveSchemesProtocol;
  readonly calibration: TokenizedText;
  readonly evaluation: TokenizedText;
  readonly job: JobOptions;
  readonly training: Uint32Array;
  readonly seed: number;
  readonly device: EngineDevice;
}

async function measureCell(
  { seed, settings }: Cell,
  options: Parameters<Experiment["run"]>[1],
): Promise<SchemeResult | Refusal> {
  const { readText, device, signal, onProgress } = options;
  const job = { signal, onProgress };
  const source = local(await options.openModel());
  const tokenizer = await loadTokenizer(source);
  const protocol = protocols[settings.scale as Scale];
  const { how } = all[settings.name as string];
  const [calibration, evaluation] = await Promise.all(
    [textNames.calibration, textNames.evaluation].map(async (name) => tokenizeText(tokenizer, await readText(name))),
  );
  const training =
    how.training === undefined
      ? new Uint32Array()
      : await tokenizeDocuments(tokenizer, await readText(textNames.training), {
          ...job,
          maxTokens: protocol.maxTokens,
        });
  const folder = await mkdtemp(join(tmpdir(), "rarefy-schemes-"));
  try {
    const work = { source, folder, protocol, calibration, evaluation, training, job, seed, device };
    return await measureScheme(how, work);
  } catch (error) {
    // That two schemes do not go together is a result.
    if (error instanceof ProblemsError || error instanceof UsageError) return { refused: error.message };
    throw error;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function local(files: ModelFiles): LocalModelFiles {
  if ("directory" in files) return files as LocalModelFiles;
  throw new UsageError(`${files.location} is no directory, which the schemes are applied to`);
}

async function measureScheme({ stages, share, training, last, weights }: Scheme, work: Work): Promise<SchemeResult> {
  const { source, folder, protocol, job } = work;
  let files = source;
  if (stages !== undefined) files = await oneShot("one-shot", files, stages(await layersOf(source)), work);
  if (share !== undefined) {
    const output = join(folder, "shared");
    await shareLayersToDirectory(files, output, { layers: share, ...job });
    files = directoryFiles(output);
  }
  // Without training it makes no difference when it is done.
  if (training === undefined && last !== undefined) files = await oneShot("last", files, last, work);
  const before = await perplexityOf(files, weights, work);
  const change = await touched(source, files, job);
  let trained: number | null = null;
  if (training !== undefined) {
    const { distil, method = "dense" } = training;
    const { steps, batch, window, rate } = protocol;
    const output = join(folder, "trained");
    await trainToDirectory(files, output, {
      from: "weights",
      ...{ method, steps, batch, window, rate, warmup: Math.ceil(steps / 10), weightDecay: 0, seed: work.seed + 1 },
      ...{
        saveEvery: 100_000,
        tokens: async () => work.training,
        device: work.device === "webgpu" ? "webgpu" : "wasm",
      },
      ...(distil !== undefined && { distil, teacher: source }),
      ...job,
    });
    files = directoryFiles(output);
    if (last !== undefined) files = await oneShot("last", files, last, work);
    trained = await perplexityOf(files, weights, work);
  }
  return {
    oneShot: before,
    trained,
    bytes: await storedBytes(files),
    denseBytes: await storedBytes(source),
    ...change,
    ...(await speedUp(files, weights, work)),
  };
}

async function layersOf(source: LocalModelFiles): Promise<number> {
  const checkpoint = await openCheckpoint(source);
  try {
    return (await describeDecoder(checkpoint)).config.layers;
  } finally {
    await checkpoint.close();
  }
}

async function oneShot(
  name: string,
  files: LocalModelFiles,
  stages: RecipeInput["stages"],
  { folder, protocol, calibration, job, seed }: Work,
): Promise<LocalModelFiles> {
  const output = join(folder, name);
  const recipe = parseRecipe({ version: 1, seed, calibration: protocol.calibration, stages }, name);
  await compressToDirectory(files, output, { recipe, calibration, store: "packed", ...job });
  return directoryFiles(output);
}

async function perplexityOf(
  files: LocalModelFiles,
  weights: Scheme["weights"],
  { evaluation, protocol, job }: Work,
): Promise<number> {
  using opened = await openModel(files, { weights, threads: 1, ...job });
  const variants = [{ name: "model", model: opened.model }];
  const [{ perplexity }] = await evaluateQuality(variants, evaluation, { ...protocol.evaluation, ...job });
  return perplexity;
}

/** Decoding in turn with the dense model, on one thread. */
async function speedUp(
  files: LocalModelFiles,
  weights: Scheme["weights"],
  { source, evaluation, protocol, job }: Work,
): Promise<Pick<SchemeResult, "speedUp" | "megabytesPerToken">> {
  using dense = await openModel(source, { weights: "bf16", threads: 1, ...job });
  using other = await openModel(files, { weights, threads: 1, ...job });
  const variants = [
    { name: "dense", model: dense.model },
    { name: "lighter", model: other.model },
  ];
  const [whole, lighter] = await measureSpeed(variants, evaluation.tokens, { ...protocol.speed, ...job });
  return {
    speedUp: lighter.decodeTokensPerSecond.median / whole.decodeTokensPerSecond.median,
    megabytesPerToken: lighter.bytesPerToken / 1e6,
  };
}

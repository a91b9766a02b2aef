import { parseRecipeText, type Recipe } from "rarefy/compress";
import { densityStored, evaluateQuality, type ResultRow, resultRow, type Variant } from "rarefy/eval";
import {
  type Artifact,
  artifactFileName,
  isCompanionFile,
  ModelStore,
  openCheckpoint,
  type StoredModelFiles,
  serializeArtifact,
  sha256Hex,
  type UnfinishedModel,
} from "rarefy/io";
import manifest from "rarefy/package.json" with { type: "json" };
import {
  calibrateActivationSparsity,
  calibratedArtifact,
  openModel,
  planCompression,
  runCompression,
  toThresholds,
} from "rarefy/pipeline";
import { loadTokenizer, type TokenizedText, tokenizeText } from "rarefy/text";
import type { Compressed, CompressRequest, TextSource } from "../protocol.js";
import type { CallContext } from "../rpc.js";
import { shortName } from "../shortName.js";
import { readAll, writeWhole } from "./copy.js";
import { job, readText } from "./job.js";
import { weightBytes } from "./weightBytes.js";

/** What `rarefy compress` and `rarefy calibrate` do, from the store into the store: the result appears there whole or not at all. */
export async function compress(request: CompressRequest, context: CallContext): Promise<Compressed> {
  const store = await ModelStore.open();
  const files = await store.files(request.location);
  const { work } = request;
  const recipe = "recipe" in work ? await parseRecipeText(work.recipe, "the recipe") : undefined;
  const texts = await textsOf(files, request, context);
  const made = (place: UnfinishedModel) =>
    "recipe" in work
      ? withRecipe(files, place, recipe!, request, texts, context)
      : withThresholds(files, place, work.skip, request, texts, context);
  const rows = await store.make(request.name, made, job(context));
  return { location: request.name, ...rows };
}

type Rows = Pick<Compressed, "before" | "after">;
type Texts = Record<"calibration" | "evaluation", TokenizedText | undefined>;

async function textsOf(files: StoredModelFiles, request: CompressRequest, context: CallContext): Promise<Texts> {
  const { calibration, evaluation, window, windows } = request;
  const tokenizer = await loadTokenizer(files);
  const tokens = async (source: TextSource | undefined, most: number) => {
    if (source === undefined) return undefined;
    const { text, name } = await readText(source, context.signal);
    return tokenizeText(tokenizer, text, { maxTokens: window * most, name, ...job(context) });
  };
  return {
    calibration: await tokens(calibration, windows),
    evaluation: await tokens(evaluation?.text, evaluation?.windows ?? 0),
  };
}

async function withRecipe(
  files: StoredModelFiles,
  place: UnfinishedModel,
  given: Recipe,
  request: CompressRequest,
  texts: Texts,
  context: CallContext,
): Promise<Rows> {
  const { window, windows, device, name } = request;
  const recipe = { ...given, calibration: { ...given.calibration, window, windows } };
  const checkpoint = await openCheckpoint(files);
  try {
    const { quota, usage = 0 } = await navigator.storage.estimate();
    const limits = { ...(quota !== undefined && { diskBytes: quota - usage }) };
    const { calibration } = texts;
    const options = {
      recipe,
      calibration,
      device,
      version: manifest.version,
      store: "packed" as const,
      limits,
      ...job(context),
    };
    const plan = await planCompression(checkpoint, options);
    const companions = [...files.sizes.keys()].filter(isCompanionFile).sort();
    const { artifact } = await runCompression(checkpoint, plan, { workspace: place, companions }, options);
    const [before, measured] = await measuredModels(files, place, request, texts, context);
    const after = {
      ...(measured ?? { model: name, weights: "f32", activationSparsity: 0 }),
      densityStored: densityStored(artifact),
      bytesOnDisk: await bytesMade(place),
    } satisfies ResultRow;
    if (before !== undefined) {
      before.bytesOnDisk = weightBytes(files.sizes);
      await writeArtifact(place, { ...artifact, results: [{ ...before }, { ...after }] });
    }
    return { before, after };
  } finally {
    await checkpoint.close();
  }
}

/** Source and result on the same windows, both in f32, as the command line measures them. */
async function measuredModels(
  files: StoredModelFiles,
  place: UnfinishedModel,
  { location, name, device, window, evaluation }: CompressRequest,
  texts: Texts,
  context: CallContext,
): Promise<ResultRow[]> {
  if (texts.evaluation === undefined) return [];
  const options = { weights: "f32" as const, device, ...job(context) };
  using before = await openModel(files, options);
  using after = await openModel(place.files, options);
  const variants = [
    { name: shortName(location), model: before.model },
    { name, model: after.model },
  ];
  return await rowsOf(variants, texts.evaluation, { window, maxWindows: evaluation!.windows, ...job(context) });
}

async function rowsOf(variants: readonly Variant[], text: TokenizedText, options: object): Promise<ResultRow[]> {
  const qualities = await evaluateQuality(variants, text, options);
  return variants.map(({ name, model }, v) =>
    resultRow({ model: name, weights: model.weights, quality: qualities[v], backend: model.backend.info.id }),
  );
}

async function withThresholds(
  files: StoredModelFiles,
  place: UnfinishedModel,
  skip: number,
  request: CompressRequest,
  { calibration: text, evaluation }: Texts,
  context: CallContext,
): Promise<Rows> {
  if (text === undefined) throw new Error("thresholds are found on a text; choose one");
  const { window, windows, device, name, location } = request;
  using opened = await openModel(files, { device, ...job(context) });
  const { model } = opened;
  const options = { sparsities: [skip], window, calibrationWindows: windows, ...job(context) };
  const calibration = await calibrateActivationSparsity(model, text, options);
  const thresholds = toThresholds(calibration.records[0]);
  const rows =
    evaluation &&
    (await rowsOf(
      [
        { name: shortName(location), model, thresholds: "dense" },
        { name, model, thresholds },
      ],
      evaluation,
      { window, maxWindows: request.evaluation!.windows, ...job(context) },
    ));
  for (const row of rows ?? []) row.bytesOnDisk = weightBytes(files.sizes);
  for (const file of files.sizes.keys())
    if (file !== artifactFileName) await writeWhole(place.sinks, file, (await files.open(file))!, context);
  const configSha256 = await sha256Hex(await readAll((await files.open("config.json"))!));
  await writeArtifact(place, calibratedArtifact(opened, calibration, { configSha256, results: rows }));
  const after = rows?.[1] ?? { model: name, weights: model.weights, activationSparsity: skip };
  return { before: rows?.[0], after };
}

async function writeArtifact({ sinks }: UnfinishedModel, artifact: Artifact): Promise<void> {
  const sink = await sinks.create(artifactFileName);
  try {
    await sink.write(serializeArtifact(artifact));
    await sink.commit();
  } catch (error) {
    await sink.abort();
    throw error;
  }
}

async function bytesMade({ files, names }: UnfinishedModel): Promise<number> {
  const sized = names().map(async (name) => [name, (await files.open(name))!.byteLength] as const);
  return weightBytes(await Promise.all(sized));
}

import * as z from "zod/mini";
import { linearsOf } from "../../arch/index.js";
import { InputStatistics, type StatisticId } from "../../compress/index.js";
import { breathe, NonFiniteError, Stage, UsageError } from "../../core/index.js";
import { checkSchema } from "../../core/internal.js";
import {
  type Artifact,
  artifactFileName,
  artifactVersion,
  type Checkpoint,
  compressionOf,
  readArtifact,
  readJsonFile,
  serializeArtifact,
} from "../../io/index.js";
import type { Backend } from "../../kernels/index.js";
import { firstNonFiniteOf } from "../../model/index.js";
import { type DecoderBlock, type InputKey, loadBlock, matrixKey, matrixNames } from "./block.js";
import { type LoadableBlock, loadable } from "./blockSource.js";
import { CalibrationRun } from "./calibrationRun.js";
import { readEmbeddingRecord } from "./embedding.js";
import { GradientFiles } from "./gradientFiles.js";
import { openPlanned } from "./plan.js";
import { type CompressionPlan, type CompressOptions, differentiates, masksByGradients } from "./planned.js";
import { ResultBlocks, resultConfig } from "./resultConfig.js";
import { copyCompanions, runsIn, writeIndex, writeOutside } from "./resultFiles.js";
import { inputKeyOf } from "./stages/stage.js";
import { type BlockRecord, storeBlock, stores } from "./storeBlock.js";
import { parseSurvey, type Survey, storedSurvey, surveyModel, wholeModel } from "./survey.js";
import { removeUnitGradients } from "./unitMasks/unitGradientFile.js";
import {
  embeddingFileName,
  type JobRecord,
  jobFileName,
  openShard,
  readRecord,
  recordName,
  recordOf,
  shardName,
  surveyFileName,
  type Workspace,
  writeBytes,
  writeJson,
  writeRecord,
  writeShard,
} from "./workspace.js";

/** Where the time of a job went, in milliseconds. */
export interface JobTimes {
  /** Looking at the dense model before the first block. */
  survey: number;
  /** Running windows through blocks and adding up what enters their matrices. */
  statistics: number;
  /** Running windows through finished blocks. */
  forward: number;
  /** Choosing, solving, rounding. */
  compress: number;
  /** Reading and writing. */
  files: number;
}

/** A compressed model in its workspace. */
export interface CompressedModel {
  artifact: Artifact;
  /** Blocks that an earlier run of the job had finished. */
  resumedBlocks: number;
  elapsedMs: JobTimes;
}

/** Where a compression writes, and what it copies. */
export interface JobFiles {
  /** Where the result grows. */
  workspace: Workspace;
  /** Files of the source that go with the result as they are: tokenizer, templates. */
  companions: readonly string[];
}

/**
 * Compresses a decoder block by block. Every block sees the outputs of the compressed blocks before it, read back from the
 * files they were written to: what a killed job has finished is all it takes to go on, and the end is the same to the bit.
 * Held at a time: the residual stream of the calibration windows, one block, and what was measured at its matrices.
 *
 * Each finished block is a file of its own with a record beside it; config, index and, last, rarefy.json follow, and then
 * everything but the model is removed.
 * @throws UsageError when the workspace holds another job
 */
export async function runCompression(
  checkpoint: Checkpoint,
  plan: CompressionPlan,
  files: JobFiles,
  options: CompressOptions,
): Promise<CompressedModel> {
  const job = new CompressionJob(checkpoint, plan, files, options);
  return job.run();
}

/** The job that a workspace is claimed for; undefined where there is none. @throws FormatError */
export const jobIn = ({ files }: Workspace): Promise<string | undefined> => readJob(files);

const jobSchema = z.looseObject({ job: z.string() });

/** @returns undefined when there is none. @throws FormatError */
async function readJob(files: Workspace["files"]): Promise<string | undefined> {
  const found = await readJsonFile(files, jobFileName);
  return found === undefined ? undefined : checkSchema(jobSchema, found, `${files.location}/${jobFileName}`).job;
}

/**
 * Notes how many calibration tokens each expert saw, and fills in what is not known of those that saw none.
 * @param wanted what was collected
 */
function completed(
  block: DecoderBlock,
  statistics: ReadonlyMap<InputKey, InputStatistics>,
  wanted: readonly StatisticId[],
): ReadonlyMap<InputKey, InputStatistics> {
  const all = new Map(statistics);
  for (const matrix of block.matrices.values()) {
    if (matrix.place.expert === undefined) continue;
    const key = inputKeyOf(matrix);
    if (!all.has(key)) all.set(key, InputStatistics.uniform(matrix.cols, wanted));
    matrix.tokens = all.get(key)!.tokens;
  }
  return all;
}

class CompressionJob {
  readonly #elapsedMs: JobTimes = { survey: 0, statistics: 0, forward: 0, compress: 0, files: 0 };
  readonly #record: JobRecord;

  constructor(
    readonly checkpoint: Checkpoint,
    readonly plan: CompressionPlan,
    readonly files: JobFiles,
    readonly options: CompressOptions,
  ) {
    const { recipe, store = stores[0], version, calibration, labelled } = options;
    const { window, windows } = recipe.calibration;
    let sourceWeights = 0;
    for (const block of plan.description.config.spec.blocks) {
      for (const { rows, cols } of linearsOf(block)) sourceWeights += rows * cols;
    }
    this.#record = {
      recipe,
      version,
      job: plan.job,
      store,
      ...(plan.windows && {
        calibration: {
          textSha256: (labelled ?? calibration!).sha256,
          windows,
          window,
          ...(calibration?.windowsBegin && { bos: true }),
          arithmetic: plan.backend!.arithmetic,
        },
      }),
      sourceWeights,
    };
  }

  async run(): Promise<CompressedModel> {
    const { workspace } = this.files;
    // rarefy.json is written last: where it is, only the tidying up is left.
    let artifact = await readArtifact({ files: workspace.files, location: workspace.files.location });
    let resumedBlocks = this.plan.layers;
    if (artifact === undefined) {
      await this.#claim();
      using backend = await openPlanned(this.plan, this.options);
      const gradients = await this.#timed("statistics", () => this.#gradients());
      const survey = await this.#timed("survey", () => this.#survey(backend, gradients));
      await this.#timed("files", () =>
        writeOutside(this.checkpoint, this.plan, workspace, this.#shard(-1), this.options),
      );
      const finished = await this.#finishedBlocks();
      resumedBlocks = finished.length;
      const records = await this.#compressBlocks(survey, finished, backend, gradients);
      artifact = await this.#timed("files", () => this.#finish(survey, records));
    } else this.#checkJob(compressionOf(artifact)?.job);
    for (let layer = 0; layer < this.plan.layers; layer++) await workspace.remove(recordName(layer));
    if (this.#differentiates) await new GradientFiles(workspace, this.plan).removeAll();
    if (this.plan.embedding !== undefined) await workspace.remove(embeddingFileName);
    if (masksByGradients(this.plan.stages)) await removeUnitGradients(workspace);
    for (const name of [surveyFileName, jobFileName]) await workspace.remove(name);
    return { artifact, resumedBlocks, elapsedMs: this.#elapsedMs };
  }

  /** Takes the workspace for this job, or goes on with it. */
  async #claim(): Promise<void> {
    const { workspace } = this.files;
    const found = await readJob(workspace.files);
    if (found !== undefined) return this.#checkJob(found);
    await writeJson(workspace, jobFileName, { ...this.#record, dtype: this.options.dtype });
  }

  #checkJob(found: unknown): void {
    if (found === this.plan.job) return;
    throw new UsageError(
      `${this.files.workspace.files.location} holds another job: its recipe, model, text, device or version differs; remove it, begin anew (\`restart\`) or write elsewhere`,
    );
  }

  get #differentiates(): boolean {
    return differentiates(this.plan.stages);
  }

  /** Those of the source, all of them: the last block's come first. */
  async #gradients(): Promise<GradientFiles | undefined> {
    if (!this.#differentiates) return undefined;
    const files = new GradientFiles(this.files.workspace, this.plan);
    await files.collect(this.checkpoint, this.options);
    await this.options.checkSource?.();
    return files;
  }

  async #survey(backend: Backend | undefined, gradients: GradientFiles | undefined): Promise<Survey> {
    const { workspace } = this.files;
    const whole = wholeModel(this.plan);
    if (whole !== undefined) return whole;
    const found = await readJsonFile(workspace.files, surveyFileName);
    if (found !== undefined) return parseSurvey(found, this.plan, `${workspace.files.location}/${surveyFileName}`);
    const survey = await surveyModel(workspace, this.checkpoint, this.plan, backend, this.options, gradients);
    await this.options.checkSource?.();
    await writeJson(workspace, surveyFileName, await storedSurvey(survey));
    return survey;
  }

  async #finishedBlocks(): Promise<BlockRecord[]> {
    const finished: BlockRecord[] = [];
    while (finished.length < this.plan.layers) {
      const record = await readRecord(
        this.files.workspace,
        finished.length,
        this.#shard(finished.length),
        this.plan.job,
      );
      if (record === undefined) break;
      finished.push(record);
    }
    return finished;
  }

  async #compressBlocks(
    { kept, budgets }: Survey,
    finished: readonly BlockRecord[],
    backend: Backend | undefined,
    gradients: GradientFiles | undefined,
  ): Promise<BlockRecord[]> {
    const { checkpoint, plan, options } = this;
    const records = [...finished];
    if (records.length === plan.layers) return records;
    const { windows, stages, description, layers } = plan;
    const progress = this.#progress(finished.length);
    const results = new ResultBlocks(checkpoint.config, description.config, kept, `${checkpoint.location}/config.json`);
    // A look at the dense model alone needs no windows here.
    const measures = stages.some(({ statistics }) => statistics.length > 0);
    const run =
      windows &&
      measures &&
      backend &&
      (await CalibrationRun.start(checkpoint, description.config.spec, backend, windows, {
        signal: options.signal,
        onWindow: () => progress.window(),
      }));
    for (let layer = 0; layer < layers; layer++) {
      await breathe(options.signal);
      progress.block(layer);
      if (layer >= finished.length) {
        const block = await this.#timed("files", () => loadBlock(checkpoint, description.config, kept[layer]));
        const known = await this.#timed("files", async () => gradients?.read(block.layer));
        for (const planned of stages) {
          const targets = [...block.matrices.values()].filter(({ key }) =>
            planned.matrices.has(matrixKey(block.layer, key)),
          );
          if (targets.length === 0) continue;
          const { stage, options, statistics: wanted } = planned;
          const statistics: ReadonlyMap<InputKey, InputStatistics> =
            !run || wanted.length === 0
              ? new Map()
              : completed(
                  block,
                  await this.#timed("statistics", () => run.collect(this.#loadable(block, layer, results), wanted)),
                  wanted,
                );
          const budget = budgets[planned.index]?.[block.layer];
          const context = {
            stage,
            options,
            targets,
            block,
            statistics,
            ...(planned.gradients.length > 0 && { gradients: known }),
            budget,
            breathe: () => breathe(this.options.signal),
          };
          await this.#timed("compress", () => planned.handler.apply(context));
          for (const { place, weight } of targets) {
            const bad = firstNonFiniteOf(weight);
            if (bad < 0) continue;
            throw new NonFiniteError(
              `${matrixNames(block.layer, place)[0]}: stage ${planned.index + 1} (${stage.type}) made entry ${bad} ${weight[bad]}`,
            );
          }
        }
        records.push(await this.#timed("files", () => this.#store(block, layer, results)));
        await gradients?.remove(block.layer);
        progress.finished();
      }
      // Nobody looks at what the last block gives.
      if (run && layer + 1 < layers) {
        const block = await this.#timed("files", () => this.#readBack(records[layer], layer, results));
        await this.#timed("forward", () => run.advance(this.#loadable(block, layer, results)));
      }
    }
    return records;
  }

  #loadable(block: DecoderBlock, layer: number, results: ResultBlocks): LoadableBlock {
    return loadable(this.checkpoint.location, block, results.at(layer, block.sizes));
  }

  async #store(block: DecoderBlock, layer: number, results: ResultBlocks): Promise<BlockRecord> {
    const { workspace } = this.files;
    const { tensors, record } = storeBlock(block, results.at(layer, block.sizes), this.options);
    const shard = this.#shard(layer);
    const artifact = recordOf(record, this.#record);
    await writeShard(workspace, shard, tensors);
    await this.options.checkSource?.();
    await writeRecord(workspace, layer, shard, artifact);
    return record;
  }

  async #readBack(record: BlockRecord, layer: number, results: ResultBlocks): Promise<DecoderBlock> {
    const stored = await openShard(this.files.workspace, this.#shard(layer), record);
    try {
      const { sizes, matrices } = record;
      const spec = results.at(layer, sizes);
      return await loadBlock(stored, this.plan.description.config, record.source, { spec, sizes, matrices });
    } finally {
      await stored.close();
    }
  }

  /** −1: what is outside the blocks. */
  #shard(layer: number): string {
    return shardName(layer + 1, this.plan.layers + 1);
  }

  /** Everything that makes the files a model; rarefy.json last. */
  async #finish({ kept, unitMasks }: Survey, records: readonly BlockRecord[]): Promise<Artifact> {
    const { checkpoint, plan, options } = this;
    const { workspace, companions } = this.files;
    await copyCompanions(checkpoint, workspace, companions);
    const shards = Array.from({ length: plan.layers + 1 }, (_, i) => this.#shard(i - 1));
    await writeIndex(workspace, shards);
    const sizes = records.map((record) => record.sizes);
    const { config, blocks } = resultConfig(checkpoint.config, plan.description.config, kept, sizes, options.dtype);
    await writeJson(workspace, "config.json", config);
    const embedding = await readEmbeddingRecord(workspace);
    const tensors = Object.assign({}, embedding?.tensors, ...records.map((record) => record.tensors));
    const artifact: Artifact = {
      rarefy: artifactVersion,
      ...runsIn(records),
      ...(Object.keys(tensors).length > 0 && { tensors }),
      ...(blocks && { blocks: [...blocks] }),
      origin: {
        compression: {
          ...this.#record,
          ...(unitMasks && { unitMasks }),
          layers: records.map(({ source, matrices }) => ({ source, matrices })),
          ...(embedding && { embedding: embedding.matrix }),
        },
      },
      source: { location: checkpoint.location, configSha256: plan.configSha256 },
    };
    await writeBytes(workspace, artifactFileName, serializeArtifact(artifact));
    return artifact;
  }

  /** Progress in windows run through blocks; in blocks where none are run. */
  #progress(finished: number) {
    const { layers, windows, stages } = this.plan;
    const collections = stages.filter(({ statistics }) => statistics.length > 0).length;
    const count = windows === undefined || collections === 0 ? 0 : windows.tokens.length / windows.window;
    const total = count === 0 ? layers - finished : count * ((layers - finished) * collections + layers - 1);
    const stage = new Stage("compress", total, count === 0 ? "blocks" : "windows", this.options.onProgress);
    let at = "";
    return {
      block(layer: number) {
        at = `block ${layer + 1} of ${layers}`;
      },
      window: () => stage.advance(1, at),
      finished: () => count === 0 && stage.advance(1, at),
    };
  }

  async #timed<T>(part: keyof JobTimes, work: () => Promise<T>): Promise<T> {
    const startMs = performance.now();
    try {
      return await work();
    } finally {
      this.#elapsedMs[part] += performance.now() - startMs;
    }
  }
}

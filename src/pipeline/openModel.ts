import { linearsOf, type ModelSpec, surplusLayers } from "../arch/index.js";
import { unusedFields } from "../arch/internal.js";
import { FormatError, type JobOptions, quote, UsageError } from "../core/index.js";
import { checkOptions, type OptionRules, optionRules } from "../core/internal.js";
import {
  type Artifact,
  artifactFileName,
  type Checkpoint,
  type ModelFiles,
  openCheckpoint,
  type Warning,
} from "../io/index.js";
import { checkArtifactMaps } from "../io/internal.js";
import type { DeviceId } from "../kernels/index.js";
import { openDevice } from "../kernels/internal.js";
import {
  describeDecoder,
  type ExpertRanks,
  type Model,
  type OffloadOptions,
  type Structure,
  structures,
} from "../model/index.js";
import { loadDescribed } from "../model/internal.js";
import { type WeightFormatId, weightFormats } from "../pack/index.js";
import {
  type Attention,
  type Exits,
  type KvChoice,
  type PrefillPolicy,
  parseAttention,
  parseExits,
  parseKv,
} from "../runtime/index.js";
import { toThresholds } from "./toThresholds.js";

/** How a model is opened; what is left out is as its `rarefy.json` says. */
export interface OpenModelOptions extends JobOptions {
  /** Packed format of the weights. Default: what `rarefy.json` names, else bf16. */
  weights?: WeightFormatId;
  /** How matrices are laid out; default "auto", what is fastest here. */
  structure?: Structure;
  /** What computes; default "cpu". */
  device?: DeviceId;
  /** Default: what the backend chooses. */
  threads?: number;
  /** Ranks that hold all experts but the first share; see `openExpertRanks` of rarefy/jobs. They must outlive the model. */
  expertRanks?: ExpertRanks;
  /**
   * How a model that `rarefy offload` has made is held: its MLPs, or its experts, stay in the file and are read as they are needed. Left out, all of it
   * is loaded.
   */
  offload?: OffloadOptions;
}

const openModelRules: OptionRules<OpenModelOptions> = {
  weights: optionRules.oneOf(Object.keys(weightFormats)),
  structure: optionRules.oneOf(structures),
  // These two are looked at where they are used.
  device: optionRules.any,
  threads: optionRules.any,
  expertRanks: optionRules.having("run", "expert ranks"),
  offload: optionRules.any,
  signal: optionRules.signal,
  onProgress: optionRules.function,
};

/** A model on a backend of its own, set up as the `rarefy.json` beside its weights says. */
export interface OpenedModel extends Disposable {
  readonly location: string;
  /** Runs with the thresholds of the artifact, where a pass or a sequence brings none of its own. */
  readonly model: Model;
  /** Which part of a prompt runs sparse; for `generate`. */
  readonly prefill: PrefillPolicy;
  /** What its sequences see and hold, where `rarefy.json` says so; for `Sequence`, `generate` and evaluation. */
  readonly attention: Attention | undefined;
  readonly kv: KvChoice | undefined;
  /** Behind which layers its tokens may leave, likewise. */
  readonly exits: Exits | undefined;
  /** `rarefy.json`; undefined for an ordinary checkpoint. */
  readonly artifact: Artifact | undefined;
  /** What its files hold that is not used, or is read otherwise elsewhere. */
  readonly warnings: readonly Warning[];
}

/** The packed format of the weights: as asked for, else what `rarefy.json` names, else bf16. */
export const weightsOf = (artifact: Artifact | undefined, wanted?: WeightFormatId): WeightFormatId =>
  wanted ?? artifact?.weights ?? "bf16";

/**
 * Opens a model directory, dense or sparse, so that it runs as it was made to run.
 * @throws what `openCheckpoint`, `openDevice` and `loadModel` throw
 */
export async function openModel(files: ModelFiles, options: OpenModelOptions = {}): Promise<OpenedModel> {
  if (typeof files?.open !== "function") {
    throw new UsageError(
      `openModel: files is ${quote(files)}; expected the files of a model, as await resolveModel("org/name or a directory") of ` +
        "rarefy/io/node, urlFiles(…) or memoryFiles(…) give them",
    );
  }
  checkOptions("openModel", options, openModelRules);
  const { threads, structure, expertRanks, signal, onProgress } = options;
  const checkpoint = await openCheckpoint(files);
  // A model that is larger than memory is read from while it runs.
  let keepsFiles = false;
  let offload: Awaited<ReturnType<typeof offloadOf>> | undefined;
  try {
    const { artifact } = checkpoint;
    const { config } = await describeDecoder(checkpoint);
    offload = options.offload && (await offloadOf(checkpoint, config.spec, options.offload, options.weights));
    const weights = offload?.file.shape.weights ?? weightsOf(artifact, options.weights);
    if (artifact !== undefined) {
      const roles = config.spec.blocks.map((block) => new Set(linearsOf(block).map(({ role }) => role)));
      checkArtifactMaps(artifact, roles, `${files.location}/${artifactFileName}`);
    }
    const { attention, kv, exits } = inferenceOf(artifact, config.layers, `${files.location}/${artifactFileName}`);
    const backend = await openDevice(options.device, threads === undefined ? {} : { threads });
    try {
      const sparsity = artifact?.activationSparsity;
      // Where neurons are predicted a pass runs sparse, with or without thresholds.
      const none = offload?.predictors && { maps: config.spec.blocks.map(() => ({})) };
      const thresholds = sparsity ? toThresholds(sparsity) : none;
      const how = { weights, structure, thresholds, expertRanks, offload, signal, onProgress };
      const model = await loadDescribed(checkpoint, config, backend, how);
      keepsFiles = offload !== undefined;
      const bundles = offload?.file.source;
      return {
        location: files.location,
        model,
        prefill: sparsity?.prefill ?? "dense",
        attention,
        kv,
        exits,
        artifact,
        warnings: [...checkpoint.warnings, ...warningsOf(checkpoint, config.spec)],
        [Symbol.dispose]() {
          model[Symbol.dispose]();
          backend[Symbol.dispose]();
          if (bundles !== undefined) void Promise.allSettled([bundles.close(), checkpoint.close()]);
        },
      };
    } catch (error) {
      backend[Symbol.dispose]();
      throw error;
    }
  } finally {
    if (!keepsFiles) {
      await offload?.file.source.close();
      await checkpoint.close();
    }
  }
}

/** Loaded where it is asked for: a page without it does not pay for it. */
async function offloadOf(
  checkpoint: Checkpoint,
  spec: ModelSpec,
  offload: OffloadOptions,
  weights: WeightFormatId | undefined,
) {
  const { openOffload } = await import("./openOffload.js");
  return openOffload(checkpoint, spec, offload, weights);
}

/** @throws FormatError for a pattern, a policy or a rule that there is not, or that does not fit the model */
function inferenceOf(
  artifact: Artifact | undefined,
  layers: number,
  file: string,
): { attention?: Attention; kv?: KvChoice; exits?: Exits } {
  const read = <T>(name: "attention" | "kv" | "exits", parse: (text: string) => T): T | undefined => {
    const text = artifact?.inference?.[name];
    if (text === undefined) return undefined;
    try {
      return parse(text);
    } catch (cause) {
      if (!(cause instanceof UsageError)) throw cause;
      throw new FormatError({
        file,
        field: `inference.${name}`,
        problem: cause.message,
        expected: `what \`${name}\` takes`,
        hint: "It was written by another version of rarefy; update rarefy or take the field out",
      });
    }
  };
  const exitsOf = (text: string): Exits => {
    const exits = parseExits(text, artifact?.exits);
    exits.open(layers);
    return exits;
  };
  return { attention: read("attention", parseAttention), kv: read("kv", parseKv), exits: read("exits", exitsOf) };
}

function warningsOf({ config, location, tensors }: Checkpoint, spec: ModelSpec): Warning[] {
  const file = `${location}/config.json`;
  const fields = unusedFields(config as Record<string, unknown>, file).map((unused) => ({ file, ...unused }));
  const [first, ...more] = surplusLayers(spec, tensors.keys());
  if (first === undefined) return fields;
  const others = more.length === 0 ? "" : ` and those of ${more.length} more`;
  const problem = `its weights${others} are not used: config.json tells of ${spec.blocks.length} layers`;
  return [...fields, { file: location, field: quote(first).slice(1, -1), problem }];
}

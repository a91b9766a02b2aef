import type { JobOptions } from "../core/index.js";
import { type AllocationComparison, calibrateBetterAllocation } from "../eval/index.js";
import {
  type ActivationSparsity,
  artifactFileName,
  isModelFile,
  type LocalModelFiles,
  serializeArtifact,
  sha256Hex,
} from "../io/index.js";
import { buildModelDirectory } from "../io/index.node.js";
import type { Model } from "../model/index.js";
import {
  type Calibration,
  type CalibrationOptions,
  calibrateActivationSparsity,
  type OpenModelOptions,
  openModel,
} from "../pipeline/index.js";
import type { TokenizedText } from "../text/index.js";

export interface CalibrateToDirectoryOptions
  extends Omit<OpenModelOptions, keyof JobOptions>,
    Omit<CalibrationOptions, "sparsities"> {
  /** Requested share of zeros, in [0, 1). */
  sparsity: number;
  /** Text to calibrate on; asked for once everything that is cheap to check is right. */
  text(): Promise<TokenizedText>;
}

/** What calibration came to; all but the first four fields is also in the result's rarefy.json. */
export interface CalibratedDirectory extends ActivationSparsity {
  output: string;
  model: string;
  /** Packed format that the thresholds belong to. */
  weights: string;
  /** Share of the blocks' weights whose inputs are dropped on the calibration text. */
  realisedSparsity: number;
  /** Of the greedy allocation with the uniform one, when it was asked for. */
  comparison?: AllocationComparison;
}

/**
 * Finds the thresholds of a model for activation sparsity, and writes a model directory that has them: the same weights, linked
 * or copied, and a rarefy.json. It appears whole or not at all.
 * @throws UsageError before anything is read when the output cannot be written; what `openModel` and
 * `calibrateActivationSparsity` throw
 */
export async function calibrateToDirectory(
  source: LocalModelFiles,
  output: string,
  options: CalibrateToDirectoryOptions,
): Promise<CalibratedDirectory> {
  const { signal, onProgress } = options;
  let calibrated: CalibratedDirectory | undefined;
  await buildModelDirectory(
    output,
    [source.directory],
    async (builder) => {
      const text = await options.text();
      using opened = await openModel(source, options);
      const { weights } = opened.model;
      const { records, sites, realisedSparsities, comparisons } = await calibrate(opened.model, text, options);
      const activationSparsity = records[0];
      const artifact = serializeArtifact({
        rarefy: 1,
        weights,
        activationSparsity,
        activations: sites.map((site) => ({ ...site })),
        source: { location: source.location, configSha256: await configHash(source) },
      });
      await builder.takeOver(source, (name) => isModelFile(name) && name !== artifactFileName);
      await builder.add(artifactFileName, artifact);
      const comparison = comparisons?.[0];
      calibrated = {
        output,
        model: source.location,
        weights,
        realisedSparsity: realisedSparsities[0],
        ...(comparison && { comparison }),
        ...activationSparsity,
      };
    },
    { signal, onProgress },
  );
  return calibrated!;
}

function calibrate(
  model: Model,
  text: TokenizedText,
  { sparsity, allocation, ...rest }: CalibrateToDirectoryOptions,
): Promise<Calibration & { comparisons?: AllocationComparison[] }> {
  const settings = { ...rest, sparsities: [sparsity] };
  return allocation === "greedy"
    ? calibrateBetterAllocation(model, text, settings)
    : calibrateActivationSparsity(model, text, { ...settings, allocation });
}

/** SHA-256 of config.json. */
export async function configHash(files: LocalModelFiles): Promise<string> {
  const config = (await files.open("config.json"))!;
  try {
    return await sha256Hex(await config.read(0, config.byteLength));
  } finally {
    await config.close();
  }
}

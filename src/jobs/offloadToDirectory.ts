import { type JobOptions, UsageError } from "../core/index.js";
import { type LocalModelFiles, openCheckpoint } from "../io/index.js";
import { createFile, isModelFile } from "../io/internal.js";
import {
  describeDecoder,
  layoutFor,
  type OffloadLayout,
  type OffloadShape,
  offloadBytesName,
  offloadDescriptionName,
  predictorsDescriptionName,
  serializeOffload,
  writeOffloaded,
} from "../model/index.js";
import { describeBundles, type HotUnits, hotUnits, placeOffload, type UnitKind } from "../model/internal.js";
import type { WeightFormatId } from "../pack/index.js";
import { countUnitUses, openModel } from "../pipeline/index.js";
import { weightsOf } from "../pipeline/internal.js";
import type { TokenizedText } from "../text/index.js";
import { writeBesideWeights } from "./besideWeights.js";

/** What is written, and on what text uses are counted. */
export interface OffloadToDirectoryOptions extends JobOptions {
  /** Default: what rarefy.json names, else bf16. */
  weights?: WeightFormatId;
  /** Default: by experts for a mixture, by neurons where hidden values are exactly 0 (ReLU), else by inputs. */
  layout?: OffloadLayout;
  /** Whether the parts of a neuron lie together; default true. */
  bundled?: boolean;
  /** A text on which the use of units is counted, so that those used most can stay in memory. */
  calibration?: { text: TokenizedText; window: number; windows: number; threads?: number };
  /** Replace what another command has left. */
  force?: boolean;
}

/** What was written. */
export interface OffloadedDirectory extends OffloadShape {
  output: string;
  model: string;
  /** Bytes of the file of bundles. */
  byteLength: number;
  /** Bytes of one unit of each kind. */
  unitBytes: readonly UnitKind[];
  /** With a calibration text: what each stream uses. */
  uses?: readonly UnitUse[];
}

/** How a stream is used: how few units make up how much of the use. */
export interface UnitUse {
  layer: number;
  of: string;
  units: number;
  /** Mean share of the units that a token uses. */
  usedShare: number;
  /** Where a tenth, a quarter and half of all units of the model stay in memory, the placement by use. */
  placements: readonly { share: number; hot: number; covered: number }[];
}

const placedShares = [0.1, 0.25, 0.5];

/**
 * Writes a model directory that runs with less memory than its weights take: the same model, its weights linked or copied, and the
 * bundles that are read while it runs. It appears whole or not at all.
 * @throws UsageError for a model that cannot be offloaded so, BusyError, StorageError
 */
export async function offloadToDirectory(
  files: LocalModelFiles,
  output: string,
  options: OffloadToDirectoryOptions = {},
): Promise<OffloadedDirectory> {
  const { bundled = true, calibration, force, signal, onProgress } = options;
  const job = { signal, onProgress };
  const checkpoint = await openCheckpoint(files);
  try {
    const { config } = await describeDecoder(checkpoint);
    const { spec } = config;
    const weights = weightsOf(checkpoint.artifact, options.weights);
    const shape: OffloadShape = { weights, layout: options.layout ?? layoutFor(spec), bundled };
    const byExpert = shape.layout === "experts";
    if (byExpert && calibration !== undefined)
      throw new UsageError("uses are counted of neurons and inputs; experts are offloaded without a calibration text");
    const { byteLength, kinds: unitBytes } = describeBundles(spec, shape);
    const streams = byExpert ? [] : placeOffload(spec, shape).streams;
    const settings = { ...shape, window: calibration?.window, windows: calibration?.windows };
    let counts: Uint32Array[] | undefined;
    const text = async () => calibration?.text;
    await writeBesideWeights(files, output, { command: "offload", force, text, settings, ...job }, async (builder) => {
      if (calibration !== undefined) {
        using opened = await openModel(files, { weights, threads: calibration.threads, ...job });
        const { text, window, windows } = calibration;
        counts = await countUnitUses(opened.model, shape, text.tokens, { window, windows, ...job });
      }
      await builder.takeOver(files, (name) => isModelFile(name) || name === predictorsDescriptionName);
      await createFile(builder.sinks, offloadBytesName, async (sink) => {
        await writeOffloaded(
          checkpoint,
          spec,
          shape,
          sink,
          (stream) => counts?.[streams.findIndex(sameAs(stream))],
          job,
        );
      });
      const description = { offload: 1 as const, ...shape, byteLength, counted: counts !== undefined };
      await builder.add(offloadDescriptionName, serializeOffload(description));
    });
    const tokens =
      calibration &&
      calibration.window *
        Math.min(calibration.windows, Math.floor(calibration.text.tokens.length / calibration.window));
    return {
      output,
      model: files.location,
      ...shape,
      byteLength,
      unitBytes,
      ...(counts && { uses: usesOf(streams, counts, tokens!) }),
    };
  } finally {
    await checkpoint.close();
  }
}

type Stream = ReturnType<typeof placeOffload>["streams"][number];

const sameAs = (stream: Stream) => (other: Stream) => other.of === stream.of && other.mlp.layer === stream.mlp.layer;

function usesOf(streams: readonly Stream[], counts: readonly Uint32Array[], tokens: number): UnitUse[] {
  // Units of one kind share a pool.
  const placed = new Map<string, { share: number; hot: HotUnits }[]>();
  for (const of of new Set(streams.map((stream) => stream.of))) {
    const own = counts.filter((_, s) => streams[s].of === of);
    const units = own.reduce((sum, { length }) => sum + length, 0);
    placed.set(
      of,
      placedShares.map((share) => ({ share, hot: hotUnits(own, Math.floor(units * share)) })),
    );
  }
  return streams.map(({ of, units, mlp: { layer } }, s) => {
    const at = streams.slice(0, s).filter((stream) => stream.of === of).length;
    return {
      layer,
      of,
      units,
      usedShare: counts[s].reduce((sum, count) => sum + count, 0) / (units * tokens),
      placements: placed
        .get(of)!
        .map(({ share, hot }) => ({ share, hot: hot.units[at].length, covered: hot.covered[at] })),
    };
  });
}

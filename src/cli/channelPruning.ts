import { UsageError } from "../core/index.js";
import type { ResultRow } from "../eval/index.js";
import { readText, resolveModel } from "../io/index.node.js";
import { type PrunedChannelsDirectory, pruneChannelsToDirectory } from "../jobs/index.js";
import { calibrationText } from "./calibrationTokens.js";
import type { Context } from "./command.js";
import type { CompressionOptions } from "./compressionOptions.js";
import { measureBoth } from "./measureBoth.js";
import { readTaskMeasure } from "./taskOptions.js";

interface ChannelPruningOptions extends CompressionOptions {
  method?: string;
  sparsity?: number;
  multipleOf?: number;
  steps?: number;
  option?: Record<string, unknown>;
  output: string;
  force?: boolean;
  shrink: boolean;
  scope?: string;
  target?: string[];
  ignore?: string[];
}

/** What --json prints. */
export interface ChannelPruningDocument extends PrunedChannelsDirectory {
  /** With --text or --tasks: the source and the result. */
  before?: ResultRow;
  after?: ResultRow;
}

const notOfChannels = ["scope", "target", "ignore", "dtype", "seed"] as const;

/** `rarefy prune --pattern channels`: leaves out channels of the residual stream, and measures what that costs. */
export async function pruneChannelsFromCommand(
  context: Context,
  argument: string,
  options: ChannelPruningOptions,
): Promise<ChannelPruningDocument> {
  const { signal, onProgress } = context;
  const { method, sparsity, multipleOf, steps, option, output, force, calib, bos } = options;
  const { window = 64, calibrationWindows: windows = 10 } = options;
  if (sparsity === undefined) throw new UsageError("give --sparsity: the share of the channels that go");
  const other = notOfChannels.find((name) => options[name] !== undefined);
  if (other !== undefined) throw new UsageError(`--${other} has no meaning for --pattern channels`);
  if (!options.shrink)
    throw new UsageError("channels that are zero would still count in every norm: leave --no-shrink out");
  const [text] = [calib && (await readText(calib)), options.text && (await readText(options.text))];
  const source = await resolveModel(argument, { signal, onProgress });
  const tasks = await readTaskMeasure(context, source, options);
  const cut = { window, calibrationWindows: windows, bos };
  const calibration =
    text === undefined ? undefined : await calibrationText(context, source, { text, name: calib }, cut);
  const pruned = await pruneChannelsToDirectory(source, output, {
    method,
    methodOptions: option,
    sparsity,
    multipleOf,
    steps,
    calibration,
    window,
    windows,
    force,
    signal,
    onProgress,
  });
  const { before, after } = pruned.channels;
  context.print(`${after} of ${before} channels in ${output}\n`);
  if (options.text === undefined && tasks === undefined) return pruned;
  return { ...pruned, ...(await measureBoth(context, source, output, tasks, { ...options, window: 512 })) };
}

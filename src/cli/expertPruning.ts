import { expertMethods } from "../compress/index.js";
import { UsageError } from "../core/index.js";
import type { ResultRow } from "../eval/index.js";
import { readText, resolveModel } from "../io/index.node.js";
import { type PrunedExpertsDirectory, type PrunedExpertsLayer, pruneExpertsToDirectory } from "../jobs/index.js";
import { calibrationText } from "./calibrationTokens.js";
import type { Context } from "./command.js";
import type { CompressionOptions } from "./compressionOptions.js";
import { type Column, table } from "./format.js";
import { measureBoth } from "./measureBoth.js";
import { readTaskMeasure } from "./taskOptions.js";

interface ExpertPruningOptions extends CompressionOptions {
  method?: string;
  experts: number;
  merge?: string;
  output: string;
  force?: boolean;
  pattern?: string;
  sparsity?: number;
  scope?: string;
  option?: Record<string, unknown>;
  target?: string[];
  ignore?: string[];
}

/** What --json prints. */
export interface ExpertPruningDocument extends PrunedExpertsDirectory {
  /** With --text or --tasks: the source and the result. */
  before?: ResultRow;
  after?: ResultRow;
}

const columns: readonly Column<PrunedExpertsLayer>[] = [
  { title: "layer", cell: ({ layer }) => `${layer}` },
  {
    title: "experts of the source that stay",
    align: "left",
    cell: ({ kept, groups }) => (groups ?? kept.map((expert) => [expert])).map((group) => group.join("+")).join(" "),
  },
];

const notOfExperts = ["pattern", "sparsity", "scope", "option", "target", "ignore", "dtype", "seed"] as const;

/** `rarefy prune --experts N`: leaves out experts, and measures what that costs. */
export async function pruneExpertsFromCommand(
  context: Context,
  argument: string,
  options: ExpertPruningOptions,
): Promise<ExpertPruningDocument> {
  const { signal, onProgress } = context;
  const { method = "reap", merge, experts, output, calib, bos, device, threads, force } = options;
  const { window = 512, calibrationWindows = 64 } = options;
  if (!Object.hasOwn(expertMethods, method)) {
    throw new UsageError(`--experts is by one of ${Object.keys(expertMethods).join(", ")}, not by ${method}`);
  }
  const other = notOfExperts.find((name) => options[name] !== undefined);
  if (other !== undefined) throw new UsageError(`--${other} has no meaning for --experts`);
  if (calib === undefined) throw new UsageError("give --calib FILE: experts are judged by what they do to a text");
  const [text] = [await readText(calib), options.text && (await readText(options.text))];
  const source = await resolveModel(argument, { signal, onProgress });
  const tasks = await readTaskMeasure(context, source, options);
  const calibration = await calibrationText(
    context,
    source,
    { text, name: calib },
    { window, calibrationWindows, bos },
  );
  const pruned = await pruneExpertsToDirectory(source, output, {
    method,
    merge,
    remove: experts,
    calibration,
    window,
    windows: calibrationWindows,
    device,
    threads,
    force,
    signal,
    onProgress,
  });
  const { before, after } = pruned.experts;
  context.print(`${table(columns, pruned.layers)}\n\n${after} of ${before} experts in ${output}\n`);
  if (options.text === undefined && tasks === undefined) return pruned;
  return { ...pruned, ...(await measureBoth(context, source, output, tasks, { ...options, window })) };
}

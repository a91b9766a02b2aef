import { evaluateQuality, formatResultRows, type ResultRow, resultRow } from "../eval/index.js";
import type { LocalModelFiles } from "../io/index.js";
import { directoryFiles } from "../io/index.node.js";
import { measureTasks } from "../tasks/index.js";
import type { Context } from "./command.js";
import type { CompressionOptions } from "./compressionOptions.js";
import { openComparison, readTokens } from "./session.js";
import type { readTaskMeasure } from "./taskOptions.js";

/** A model and what was made of it, measured in one run and printed. */
export async function measureBoth(
  context: Context,
  source: LocalModelFiles,
  output: string,
  tasks: Awaited<ReturnType<typeof readTaskMeasure>>,
  { text, window, maxWindows, device, threads }: CompressionOptions & { window: number },
): Promise<{ before: ResultRow; after: ResultRow }> {
  const { signal, onProgress } = context;
  const evaluation = text && (await readTokens(context, source, text, { maxTokens: (maxWindows + 1) * window }));
  using comparison = await openComparison(context, [source, directoryFiles(output)], {
    device,
    threads,
    structure: "auto",
  });
  const { variants } = comparison;
  const cut = { convention: "windows" as const, window, maxWindows, prefill: { denseFirst: 0 } };
  const qualities = evaluation
    ? await evaluateQuality(variants, evaluation, { ...cut, signal, onProgress })
    : undefined;
  const rows: ResultRow[] = [];
  for (const [v, variant] of variants.entries()) {
    const figures = tasks && (await measureTasks(variant, tasks, { signal, onProgress }));
    const { weights } = variant.model;
    rows.push(resultRow({ ...variant, model: variant.name, weights, quality: qualities?.[v], tasks: figures }));
  }
  const [before, after] = rows;
  context.print(`${formatResultRows([before, after])}\n`);
  return { before, after };
}

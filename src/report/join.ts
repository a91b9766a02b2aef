import type { ReportData, Run } from "./data.js";
import { toBase64 } from "./figures/index.js";

/** Puts single models that were measured against the same source on the same text into one run. */
export function joinRuns(runs: readonly Run[]): Run[] {
  const joined = new Map<string, Run>();
  for (const [i, run] of runs.entries()) {
    const { source } = run;
    const alone = source === undefined || run.candidates.length !== 1;
    const key = alone
      ? String(i)
      : JSON.stringify([source.model, source.perplexity, source.textSha256, source.windows]);
    const first = joined.get(key);
    if (first === undefined) joined.set(key, { ...run });
    else {
      first.location = `${first.location}, ${run.location}`;
      // ISO dates sort as texts; a chapter is as old as what came last.
      if (run.made !== undefined && !(first.made !== undefined && first.made > run.made)) first.made = run.made;
      first.candidates = [...first.candidates, ...run.candidates];
    }
  }
  return [...joined.values()];
}

/** The data of the page as JSON; pictures as base64. */
export function reportJson(data: ReportData): string {
  const text = JSON.stringify(data, (_key, value) => (value instanceof Uint8Array ? toBase64(value) : value), 2);
  return `${text}\n`;
}

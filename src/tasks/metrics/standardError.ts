import { breathe, type JobOptions, meanAndDeviation, Stage } from "../../core/index.js";
import { PythonRandom } from "../pythonRandom.js";
import type { Aggregation, DocumentValue } from "./aggregations.js";

/** Resamples that one seed draws, as in lm-evaluation-harness: its seeds are the numbers of these parts. */
const part = 1000;

/**
 * The standard error of an aggregated metric: s/√n where it is a mean, else the spread of the figure over resamples of the
 * documents (bootstrap; Efron, 1979), drawn as lm-evaluation-harness draws them.
 * @param resamples at most; 0 for no standard errors
 * @returns undefined where there is none
 */
export async function standardErrorOf(
  aggregation: Aggregation,
  values: readonly DocumentValue[],
  resamples: number,
  { signal, onProgress }: JobOptions = {},
): Promise<number | undefined> {
  const { standardError } = aggregation;
  if (standardError === undefined || resamples <= 0 || values.length < 2) return undefined;
  if (standardError === "spread") return spreadOfMean(values as readonly number[]);
  const most = Math.min(resamples, standardError.resamples);
  const each = Math.min(part, most);
  const figure = aggregation.over(values);
  const indices = new Uint32Array(values.length);
  const figures: number[] = [];
  const stage = new Stage("resample", Math.floor(most / each), "parts", onProgress);
  for (let seed = 0; seed < Math.floor(most / each); seed++) {
    const random = new PythonRandom(seed);
    for (let i = 0; i < each; i++) {
      for (let at = 0; at < indices.length; at++) indices[at] = Math.floor(random.uniform() * values.length);
      figures.push(figure(indices));
    }
    stage.advance(1);
    await breathe(signal);
  }
  return meanAndDeviation(figures).deviation;
}

/** Standard error of the mean of some numbers, two at least. */
export const spreadOfMean = (values: readonly number[]): number =>
  meanAndDeviation(values).deviation / Math.sqrt(values.length);

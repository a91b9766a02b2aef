import { meanAndDeviation } from "../core/index.js";

/** One figure of one task, as rows of results have it. */
export interface TaskRow {
  task: string;
  metric: string;
  /** What answers went through before they were compared; "none" where nothing. */
  filter: string;
  value: number;
  /** Absent where none is known. */
  standardError?: number;
  higherIsBetter: boolean;
  /** How the figure is made of those of the documents. */
  aggregation: string;
  /** Examples in front of each question. */
  shots: number;
  documents: number;
  /** SHA-256 over all that was asked. */
  sha256: string;
  /** What each document gave, with spaces between them, where the figure is a mean of it, or e to that. */
  values?: string;
}

/** How one model's figure differs from another's. */
export interface TaskDifference {
  difference: number;
  /** Undefined where none is known. */
  standardError: number | undefined;
  /** Whether it is of the differences document by document; else of both figures as if they were independent. */
  paired: boolean;
  /** Whether it is less than 1.96 standard errors: what a repetition with other documents could give between equal models. */
  withinNoise: boolean | undefined;
}

/** Standard errors that a difference must be beyond. */
const significance = 1.96;

/** What a row says of the same task and metric; undefined where it asked something else. */
export function sameTask(rows: readonly TaskRow[] | undefined, { task, metric, filter, sha256 }: TaskRow) {
  return rows?.find(
    (row) => row.task === task && row.metric === metric && row.filter === filter && row.sha256 === sha256,
  );
}

/** The difference of a figure from another of the same documents. */
export function taskDifference(row: TaskRow, of: TaskRow): TaskDifference {
  const difference = row.value - of.value;
  const [values, others] = [valuesOf(row), valuesOf(of)];
  if (values !== undefined && values.length === others?.length && values.length > 1) {
    const { mean, deviation } = meanAndDeviation(values.map((value, i) => value - others[i]));
    const error = deviation / Math.sqrt(values.length);
    // Of e to a mean, by how much it changes with the mean.
    const scale = row.aggregation === "mean" ? 1 : of.value;
    return {
      difference,
      standardError: error * scale,
      paired: true,
      withinNoise: Math.abs(mean) <= significance * error,
    };
  }
  if (row.standardError === undefined || of.standardError === undefined) {
    return { difference, standardError: undefined, paired: false, withinNoise: undefined };
  }
  const standardError = Math.hypot(row.standardError, of.standardError);
  return {
    difference,
    standardError,
    paired: false,
    withinNoise: Math.abs(difference) <= significance * standardError,
  };
}

function valuesOf({ values }: TaskRow): number[] | undefined {
  const numbers = values?.split(" ").map(Number);
  return numbers?.every(Number.isFinite) ? numbers : undefined;
}

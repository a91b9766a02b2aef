import type { ProgressEvent } from "../core/index.js";
import { duration, printable } from "./format.js";

/**
 * Where progress goes, on stderr: one line that is redrawn on a terminal; now and then a line of text elsewhere, as in a log;
 * JSON lines for programs, with --json; nowhere with --quiet.
 */
export interface ProgressSink {
  show(event: ProgressEvent): void;
  /** Takes the bar off the terminal, so that other output may follow. */
  clear(): void;
}

export interface ProgressStream {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

export const silentProgress: ProgressSink = { show: () => {}, clear: () => {} };

/**
 * @param json as JSON lines, where nobody watches
 * @param term the environment's TERM, where the stream is a terminal
 */
export function progressOn(
  stream: ProgressStream,
  { json = false, term }: { json?: boolean; term?: string } = {},
): ProgressSink {
  if (stream.isTTY && term !== "dumb") return progressBar(stream);
  return json && !stream.isTTY ? jsonLines(stream) : textLines(stream);
}

const barWidth = 24;
/** Of terminals that do not say, or say 0. */
const defaultColumns = 80;

function progressBar(stream: ProgressStream): ProgressSink {
  let drawn = false;
  return {
    show(event) {
      const line = barLine(event);
      stream.write(`\r${line.slice(0, (stream.columns || defaultColumns) - 1)}\x1b[K`);
      drawn = true;
    },
    clear() {
      if (drawn) stream.write("\r\x1b[K");
      drawn = false;
    },
  };
}

function barLine(event: ProgressEvent): string {
  const filled = Math.round((shareDone(event) ?? 0) * barWidth);
  return line(event, `${"█".repeat(filled)}${"░".repeat(barWidth - filled)} `);
}

/** @param bar in front of the share that is done */
function line(event: ProgressEvent, bar = ""): string {
  const { stage, done, total, unit, elapsedMs, etaMs, detail } = event;
  const share = shareDone(event);
  if (total === undefined || share === undefined) return `${stage}  ${quantity(done, unit)}  ${duration(elapsedMs)}`;
  const finished = done >= total;
  const time = finished ? `  in ${duration(elapsedMs)}` : etaMs === undefined ? "" : `  ${duration(etaMs)} left`;
  const of = unit === "bytes" ? quantity(total, unit) : `${done}/${total} ${unit}`;
  const what = detail === undefined || finished ? "" : `  ${printable(detail)}`;
  return `${stage}  ${bar}${String(Math.round(share * 100)).padStart(3)} %  ${of}${time}${what}`;
}

/** From 0 to 1; undefined where nobody knows how much there is. */
const shareDone = ({ done, total }: ProgressEvent) =>
  total === undefined ? undefined : total === 0 ? 1 : Math.min(1, done / total);

const quantity = (amount: number, unit: string) =>
  unit === "bytes" ? `${(amount / 1e6).toFixed(0)} MB` : `${amount} ${unit}`;

/** Of text: the last line of a stage, and one when there has been none for this long. */
const textIntervalMs = 5000;
const jsonIntervalMs = 1000;

function textLines(stream: ProgressStream): ProgressSink {
  let writtenMs = performance.now();
  return {
    show(event) {
      const nowMs = performance.now();
      if (!isLast(event) && nowMs - writtenMs < textIntervalMs) return;
      writtenMs = nowMs;
      stream.write(`${line(event)}\n`);
    },
    clear() {},
  };
}

/** At most one line per stage and second, but always the first and the last one of a stage. */
function jsonLines(stream: ProgressStream): ProgressSink {
  let stage: string | undefined;
  let writtenMs = Number.NEGATIVE_INFINITY;
  return {
    show(event) {
      const nowMs = performance.now();
      if (event.stage === stage && !isLast(event) && nowMs - writtenMs < jsonIntervalMs) return;
      stage = event.stage;
      writtenMs = nowMs;
      stream.write(`${jsonLine(event)}\n`);
    },
    clear() {},
  };
}

const isLast = ({ done, total }: ProgressEvent) => total !== undefined && done >= total;

function jsonLine(event: ProgressEvent): string {
  const rounded = { ...event, elapsedMs: Math.round(event.elapsedMs) };
  if (event.etaMs !== undefined) rounded.etaMs = Math.round(event.etaMs);
  return JSON.stringify(rounded);
}

import type { ProgressEvent } from "../core/index.js";
import { duration, printable } from "./format.js";

/**
 * Where progress goes: one line that is redrawn on a terminal (line after line on one that knows no escape codes), JSON lines
 * elsewhere, nowhere with --quiet.
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

/** @param term the environment's TERM, where the stream is a terminal */
export function progressOn(stream: ProgressStream, term?: string): ProgressSink {
  if (!stream.isTTY) return progressLines(stream, jsonLine);
  return term === "dumb" ? progressLines(stream, barLine) : progressBar(stream);
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

function barLine({ stage, done, total, unit, elapsedMs, etaMs, detail }: ProgressEvent): string {
  if (total === undefined) return `${stage}  ${quantity(done, unit)}  ${duration(elapsedMs)}`;
  const share = total === 0 ? 1 : Math.min(1, done / total);
  const filled = Math.round(share * barWidth);
  const bar = "█".repeat(filled) + "░".repeat(barWidth - filled);
  const eta = etaMs === undefined ? "" : `  ${duration(etaMs)} left`;
  const of = unit === "bytes" ? quantity(total, unit) : `${done}/${total} ${unit}`;
  const what = detail === undefined ? "" : `  ${printable(detail)}`;
  return `${stage}  ${bar} ${String(Math.round(share * 100)).padStart(3)} %  ${of}${eta}${what}`;
}

const quantity = (amount: number, unit: string) =>
  unit === "bytes" ? `${(amount / 1e6).toFixed(0)} MB` : `${amount} ${unit}`;

/** At most one line per stage and second, but always the last one of a stage. */
function progressLines(stream: ProgressStream, line: (event: ProgressEvent) => string): ProgressSink {
  let stage: string | undefined;
  let writtenMs = Number.NEGATIVE_INFINITY;
  return {
    show(event) {
      const nowMs = performance.now();
      const finished = event.total !== undefined && event.done >= event.total;
      if (event.stage === stage && !finished && nowMs - writtenMs < 1000) return;
      stage = event.stage;
      writtenMs = nowMs;
      stream.write(`${line(event)}\n`);
    },
    clear() {},
  };
}

function jsonLine(event: ProgressEvent): string {
  const rounded = { ...event, elapsedMs: Math.round(event.elapsedMs) };
  if (event.etaMs !== undefined) rounded.etaMs = Math.round(event.etaMs);
  return JSON.stringify(rounded);
}

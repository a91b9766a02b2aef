import type { ProgressEvent } from "rarefy/core";
import { element, megabytes, timeLeft } from "./page.js";
import type { StudioEvent } from "./protocol.js";
import { Stopped } from "./rpc.js";

let running: AbortController | undefined;

/** Ends the task that runs; it stops at its next step. */
export const cancelTask = () => running?.abort();

/** Runs one task at a time, with its progress shown and its error said. @returns undefined when it failed or was cancelled */
export async function task<T>(
  work: (onEvent: (event: StudioEvent) => void, signal: AbortSignal) => Promise<T>,
): Promise<T | undefined> {
  const own = new AbortController();
  running = own;
  document.body.classList.add("busy");
  element("error").hidden = true;
  element("error").textContent = "";
  try {
    return await work((event) => event.type === "progress" && showProgress(event), own.signal);
  } catch (error) {
    if (!(error instanceof Stopped)) {
      element("error").textContent = (error as Error).message;
      element("error").hidden = false;
    }
    return undefined;
  } finally {
    if (running === own) running = undefined;
    element("task").hidden = true;
    document.body.classList.remove("busy");
  }
}

function showProgress({ stage, done, total, unit, etaMs, detail }: ProgressEvent): void {
  element("task").hidden = false;
  const bar = element<HTMLProgressElement>("progress");
  if (total === undefined) bar.removeAttribute("value");
  else Object.assign(bar, { max: total, value: done });
  const amount = (count: number) => (unit === "bytes" ? megabytes(count) : `${count} ${unit}`);
  const share = total === undefined ? amount(done) : `${amount(done)} of ${amount(total)}`;
  const left = etaMs === undefined ? "" : timeLeft(etaMs);
  element("progress-text").textContent = [stage, share, left, detail].filter(Boolean).join(" · ");
}

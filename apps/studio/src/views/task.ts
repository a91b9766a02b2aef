import type { StudioEvent } from "../protocol.js";
import { type CallOptions, Stopped } from "../rpc.js";
import { button, made, megabytes, timeLeft } from "./page.js";

/**
 * Where a view shows what it is doing: progress, Cancel, and the error that ended it. One task runs at a time; meanwhile the view
 * has the class "busy".
 */
export class Task {
  readonly #bar = made("progress");
  readonly #text = made("p", { className: "small progress-text" });
  readonly #error = made("p", { className: "error", role: "alert", hidden: true });
  readonly #progress: HTMLElement;
  #running: AbortController | undefined;

  /** @param view the part of the page that is busy @param place where the progress goes */
  constructor(
    readonly view: HTMLElement,
    place: HTMLElement,
  ) {
    this.#bar.setAttribute("aria-label", "Progress");
    this.#progress = made("div", { className: "task", hidden: true }, this.#bar, this.#text);
    this.#progress.append(button("Cancel", () => this.cancel(), { className: "cancel" }));
    place.append(this.#progress, this.#error);
  }

  get error(): HTMLElement {
    return this.#error;
  }

  get running(): boolean {
    return this.#running !== undefined;
  }

  /** Ends the task that runs; it stops at its next step. */
  cancel(): void {
    this.#running?.abort();
  }

  /** Runs a task, ending the one before. @returns undefined when it failed or was cancelled */
  async run<T>(work: (options: Required<CallOptions>) => Promise<T>): Promise<T | undefined> {
    this.cancel();
    const own = new AbortController();
    this.#running = own;
    this.view.classList.add("busy");
    this.#error.hidden = true;
    this.#error.textContent = "";
    try {
      return await work({
        onEvent: (event) => {
          // One that was ended may still tell.
          if (this.#running === own) this.#show(event);
        },
        signal: own.signal,
      });
    } catch (error) {
      if (!(error instanceof Stopped)) {
        this.#error.textContent = (error as Error).message;
        this.#error.hidden = false;
      }
      return undefined;
    } finally {
      if (this.#running === own) {
        this.#running = undefined;
        this.#progress.hidden = true;
        this.view.classList.remove("busy");
      }
    }
  }

  /** Progress shows; a token that is written is shown elsewhere, and work before it is done. */
  #show(event: StudioEvent): void {
    this.#progress.hidden = event.type !== "progress";
    if (event.type !== "progress") return;
    const { stage, done, total, unit, etaMs, detail } = event;
    if (total === undefined) this.#bar.removeAttribute("value");
    else Object.assign(this.#bar, { max: total, value: done });
    const amount = (count: number) => (unit === "bytes" ? megabytes(count) : `${count} ${unit}`);
    const share = total === undefined ? amount(done) : `${amount(done)} of ${amount(total)}`;
    const left = etaMs === undefined ? "" : timeLeft(etaMs);
    this.#text.textContent = [stage, share, left, detail].filter(Boolean).join(" · ");
  }
}

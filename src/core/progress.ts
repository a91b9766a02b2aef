/** One step of a long job. `done` and `total` are in `unit`; `total` is undefined while it is unknown. */
export interface ProgressEvent {
  /** Short name of the stage, the same string for all events of one stage: "load weights", "calibrate". */
  stage: string;
  done: number;
  total?: number;
  /** "bytes", "tensors", "tokens", "windows", "blocks" … */
  unit: string;
  /** Time since the stage began. */
  elapsedMs: number;
  /** Estimated time to the end of the stage; undefined until it can be told. */
  etaMs?: number;
  /** What is being worked on: a tensor name, a file. */
  detail?: string;
}

/** Called now and then during long work; what it throws ends the work. */
export type OnProgress = (event: ProgressEvent) => void;

/** What every long-running call accepts. */
export interface JobOptions {
  onProgress?: OnProgress;
  signal?: AbortSignal;
}

/** Counts one stage and reports it with an estimate of the time left. Reports at most every 100 ms, and at the end. */
export class Stage {
  readonly #startMs = performance.now();
  #lastMs = Number.NEGATIVE_INFINITY;
  #done = 0;

  constructor(
    readonly name: string,
    readonly total: number | undefined,
    readonly unit: string,
    readonly onProgress: OnProgress | undefined,
  ) {}

  /** Adds `amount` units of finished work. */
  advance(amount: number, detail?: string): void {
    this.#done += amount;
    if (this.onProgress === undefined) return;
    const nowMs = performance.now();
    const finished = this.total !== undefined && this.#done >= this.total;
    if (!finished && nowMs - this.#lastMs < 100) return;
    this.#lastMs = nowMs;
    const elapsedMs = nowMs - this.#startMs;
    const event: ProgressEvent = { stage: this.name, done: this.#done, unit: this.unit, elapsedMs };
    if (this.total !== undefined) {
      event.total = this.total;
      if (this.#done > 0) event.etaMs = Math.max(0, (elapsedMs * (this.total - this.#done)) / this.#done);
    }
    if (detail !== undefined) event.detail = detail;
    this.onProgress(event);
  }
}

import { DeviceError, type JobOptions } from "../../core/index.js";
import type { ModelEntry, ServedModel } from "./servedModel.js";

/** A model while a request uses it: it is not unloaded before this is disposed of. */
export interface Lease extends Disposable {
  readonly model: ServedModel;
}

/** Every model in memory is in use and another one does not fit beside them. */
export class ModelsBusyError extends Error {}

interface Loaded {
  readonly model: ServedModel;
  leases: number;
  usedAt: number;
}

/** Models by name, loaded when they are asked for; those that were not used for longest make room. */
export class ModelPool implements Disposable {
  readonly #loaded = new Map<string, Loaded>();
  /** What a model took when it was loaded last, weights and all. */
  readonly #sizes = new Map<string, number>();
  /** One at a time, so that what is free is known. */
  #loading: Promise<unknown> = Promise.resolve();
  #clock = 0;
  #closed = false;

  /** @param maxBytes of all models together; Infinity for no limit */
  constructor(
    readonly entries: readonly ModelEntry[],
    readonly maxBytes: number,
    readonly load: (entry: ModelEntry, job: JobOptions) => Promise<ServedModel>,
  ) {}

  get loaded(): readonly ServedModel[] {
    return Array.from(this.#loaded.values(), ({ model }) => model);
  }

  has(id: string): boolean {
    return this.entries.some((entry) => entry.id === id);
  }

  /**
   * @param id one of the entries'
   * @throws ModelsBusyError while there is no room, DeviceError where there never is, and what loading throws
   */
  async lease(id: string, job: JobOptions = {}): Promise<Lease> {
    let found = this.#loaded.get(id);
    // One that was loaded may have made room for another before it is taken here.
    while (found === undefined) {
      const mine = this.#loading.then(() => this.#loadOnce(id, job));
      this.#loading = mine.catch(() => {});
      await mine;
      this.#checkOpen();
      found = this.#loaded.get(id);
    }
    this.#checkOpen();
    found.leases++;
    found.usedAt = this.#clock++;
    // Keys and values have grown since models were loaded.
    this.#dropUnused(0);
    let released = false;
    return {
      model: found.model,
      [Symbol.dispose]: () => {
        if (released) return;
        released = true;
        found.leases--;
      },
    };
  }

  async #loadOnce(id: string, job: JobOptions): Promise<Loaded> {
    this.#checkOpen();
    const known = this.#loaded.get(id);
    if (known !== undefined) return known;
    const entry = this.entries.find((one) => one.id === id)!;
    this.#makeRoom(this.#sizes.get(id) ?? 0, id);
    const model = await this.load(entry, job);
    if (this.#closed) model[Symbol.dispose]();
    this.#checkOpen();
    const size = model.opened.model.backend.memoryBytes();
    this.#sizes.set(id, size);
    try {
      this.#makeRoom(size, id);
    } catch (error) {
      model[Symbol.dispose]();
      throw error;
    }
    const loaded = { model, leases: 0, usedAt: this.#clock++ };
    this.#loaded.set(id, loaded);
    return loaded;
  }

  #checkOpen(): void {
    if (this.#closed) throw new ModelsBusyError("the server closes");
  }

  #makeRoom(bytes: number, id: string): void {
    if (bytes > this.maxBytes) {
      throw new DeviceError(`the model ${id} takes ${bytes} bytes, and the limit of all models is ${this.maxBytes}`);
    }
    if (!this.#dropUnused(bytes)) throw new ModelsBusyError(`no room for the model ${id} while others are in use`);
  }

  /** Lets go of models that nobody uses until there is room for so many bytes more. @returns whether there is */
  #dropUnused(bytes: number): boolean {
    // A text whose client went away runs until the end of its step.
    const free = [...this.#loaded]
      .filter(([, { leases, model }]) => leases === 0 && !model.engine?.busy)
      .sort(([, a], [, b]) => a.usedAt - b.usedAt);
    while (this.#bytes() + bytes > this.maxBytes) {
      const oldest = free.shift();
      if (oldest === undefined) return false;
      this.#loaded.delete(oldest[0]);
      oldest[1].model[Symbol.dispose]();
    }
    return true;
  }

  #bytes(): number {
    return this.loaded.reduce((sum, { opened }) => sum + opened.model.backend.memoryBytes(), 0);
  }

  /** Everything is given back; wait for the engines to be idle first. */
  [Symbol.dispose](): void {
    this.#closed = true;
    for (const { model } of this.#loaded.values()) model[Symbol.dispose]();
    this.#loaded.clear();
  }
}

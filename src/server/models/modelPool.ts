import { DeviceError, type JobOptions } from "../../core/index.js";
import type { ModelEntry, ModelRoom, ServedModel } from "./servedModel.js";

/** A model while a request uses it: it is not unloaded before this is disposed of. */
export interface Lease extends Disposable {
  readonly model: ServedModel;
}

/** Every model in memory is in use and another one does not fit beside them. */
export class ModelsBusyError extends Error {}

interface Loaded {
  readonly model: ServedModel;
  /** What it took when it was loaded, and the working memory of its passes. */
  readonly ownBytes: number;
  leases: number;
  usedAt: number;
}

/**
 * Models by name, loaded when they are asked for; those that were not used for longest make room. The limit holds for the weights,
 * the working memory that passes may come to, and the keys and values of texts: who wants more of those asks for it before.
 */
export class ModelPool implements Disposable {
  readonly #loaded = new Map<string, Loaded>();
  /** `Loaded.ownBytes` of a model when it was loaded last. */
  readonly #sizes = new Map<string, number>();
  /** One at a time, so that what is free is known. */
  #loading: Promise<unknown> = Promise.resolve();
  #clock = 0;
  #closed = false;

  /** @param maxBytes of all models together; Infinity for no limit */
  constructor(
    readonly entries: readonly ModelEntry[],
    readonly maxBytes: number,
    readonly load: (entry: ModelEntry, job: JobOptions, room: ModelRoom) => Promise<ServedModel>,
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
    // Passes may have taken more than they were thought to.
    this.#free(0, id);
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
    const model = await this.load(entry, job, this.#roomOf(id));
    if (this.#closed) model[Symbol.dispose]();
    this.#checkOpen();
    const ownBytes = model.opened.model.backend.memoryBytes() + (model.engine?.passBytes ?? 0);
    this.#sizes.set(id, ownBytes);
    try {
      this.#makeRoom(ownBytes, id);
    } catch (error) {
      model[Symbol.dispose]();
      throw error;
    }
    const loaded = { model, ownBytes, leases: 0, usedAt: this.#clock++ };
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
    if (!this.#free(bytes, id)) throw new ModelsBusyError(`no room for the model ${id} while others are in use`);
  }

  #roomOf(id: string): ModelRoom {
    const most = () => this.maxBytes - (this.#loaded.get(id)?.ownBytes ?? 0);
    return {
      weights: (bytes) => this.#makeRoom(bytes, id),
      texts: {
        get most() {
          return most();
        },
        take: (bytes) => this.#free(bytes, id),
        busy: () =>
          new ModelsBusyError(`no room for the keys and values of this text of ${id} while others are in use`),
      },
    };
  }

  /** Lets go of what the others hold and nobody needs, until the model may have so many bytes more. @returns whether it may */
  #free(bytes: number, id: string): boolean {
    const fits = () => this.#bytes() + bytes <= this.maxBytes;
    const others = [...this.#loaded].filter(([other]) => other !== id).sort(([, a], [, b]) => a.usedAt - b.usedAt);
    // What texts have left is sooner made anew than a model is loaded.
    for (const [, { model }] of others) {
      if (fits()) return true;
      model.engine?.memory.shed();
    }
    for (const [other, { model, leases }] of others) {
      if (fits()) return true;
      // A text whose client went away runs until the end of its step.
      if (leases > 0 || model.engine?.busy) continue;
      this.#loaded.delete(other);
      model[Symbol.dispose]();
    }
    return fits();
  }

  #bytes(): number {
    return [...this.#loaded.values()].reduce((sum, { model: { opened, engine }, ownBytes }) => {
      return sum + Math.max(opened.model.backend.memoryBytes(), ownBytes + (engine?.memory.taken ?? 0));
    }, 0);
  }

  /** Everything is given back; wait for the engines to be idle first. */
  [Symbol.dispose](): void {
    this.#closed = true;
    for (const { model } of this.#loaded.values()) model[Symbol.dispose]();
    this.#loaded.clear();
  }
}

import { type Kernel, paramBytes } from "./kernel.js";

const placesPerChunk = 256;
const paramWords = paramBytes / 4;

/** A uniform buffer, its bytes as they will be, and which of them the GPU has not been told yet. */
interface Chunk {
  readonly buffer: GPUBuffer;
  readonly u32: Uint32Array;
  readonly f32: Float32Array;
  firstChanged: number;
  endChanged: number;
}

/** Where the parameters of one dispatch lie. */
export interface Place {
  readonly chunk: Chunk;
  readonly index: number;
}

/**
 * Parameters of dispatches, each in a place of its own that it keeps: a token repeats the dispatches of the token before, and
 * most of their parameters, so that hardly anything has to be sent.
 */
export class Parameters {
  readonly #chunks: Chunk[] = [];
  #free: Place[] = [];

  constructor(
    readonly gpu: GPUDevice,
    readonly usage: number,
  ) {}

  take(): Place {
    if (this.#free.length === 0) this.#grow();
    return this.#free.pop()!;
  }

  giveBack(place: Place): void {
    this.#free.push(place);
  }

  resource({ chunk, index }: Place): GPUBufferBinding {
    return { buffer: chunk.buffer, offset: index * paramBytes, size: paramBytes };
  }

  /** Sets them for dispatches submitted from now on. */
  write<P extends string>(
    { chunk, index }: Place,
    types: Kernel<P>["params"],
    values: Readonly<Record<P, number>>,
    table: ArrayLike<number>,
  ): void {
    const { u32, f32 } = chunk;
    const begin = index * paramWords;
    let word = begin;
    let changed = false;
    for (const name in types) {
      const before = u32[word];
      (types[name] === "f32" ? f32 : u32)[word] = values[name];
      changed ||= u32[word] !== before;
      word++;
    }
    word = Math.ceil(word / 4) * 4;
    for (let i = 0; i < table.length; i++, word++) {
      const before = u32[word];
      u32[word] = table[i];
      changed ||= u32[word] !== before;
    }
    if (!changed) return;
    chunk.firstChanged = Math.min(chunk.firstChanged, index);
    chunk.endChanged = Math.max(chunk.endChanged, index + 1);
  }

  /** Sends what has changed; before the dispatches that read it are submitted. */
  upload(): void {
    for (const chunk of this.#chunks) {
      const { firstChanged: first, endChanged: end } = chunk;
      if (first >= end) continue;
      this.gpu.queue.writeBuffer(
        chunk.buffer,
        first * paramBytes,
        chunk.u32.buffer as ArrayBuffer,
        first * paramBytes,
        (end - first) * paramBytes,
      );
      chunk.firstChanged = placesPerChunk;
      chunk.endChanged = 0;
    }
  }

  #grow(): void {
    const size = placesPerChunk * paramBytes;
    const bytes = new ArrayBuffer(size);
    const chunk: Chunk = {
      buffer: this.gpu.createBuffer({ size, usage: this.usage, label: "parameters" }),
      u32: new Uint32Array(bytes),
      f32: new Float32Array(bytes),
      firstChanged: placesPerChunk,
      endChanged: 0,
    };
    this.#chunks.push(chunk);
    // The last is taken first: dispatches that follow one another lie side by side.
    for (let index = placesPerChunk - 1; index >= 0; index--) this.#free.push({ chunk, index });
  }
}

import { type BlockSpec, findStep, type ModelSpec } from "../../../arch/index.js";
import { keptBy } from "../../../arch/internal.js";
import { breathe } from "../../../core/index.js";
import type { Checkpoint } from "../../../io/index.js";
import type { Activation, Backend, KvCache, KvCacheSpec } from "../../../kernels/index.js";
import { type Blocks, firstNonFiniteOf, type Tap } from "../../../model/index.js";
import { loadBlocks, nonFiniteError } from "../../../model/internal.js";
import type { TextWindows } from "../../gradients.js";
import type { LoadableBlock } from "../blockSource.js";
import { embedWindows } from "../embedWindows.js";
import type { BlockPart } from "./parts.js";

/** Rows that go through a part together, as long as that is more than one text. */
const rowsTogether = 1024;

/** Texts of any lengths, one behind the other, without what windows are filled up with. */
export interface Texts {
  /** Tokens of each. */
  lengths: readonly number[];
  /** The residual streams, f32 [tokens, hiddenSize]. */
  streams: Float32Array;
}

/** Texts as they enter the first block. */
export async function embedTexts(checkpoint: Checkpoint, spec: ModelSpec, windows: TextWindows): Promise<Texts> {
  const { tokens, window } = windows;
  const count = tokens.length / window;
  const lengths = Array.from(windows.lengths ?? new Uint32Array(count).fill(window));
  const padded = await embedWindows(checkpoint, spec, tokens, window);
  const width = spec.hiddenSize;
  const streams = new Float32Array(lengths.reduce((sum, length) => sum + length, 0) * width);
  let at = 0;
  for (const [w, length] of lengths.entries()) {
    streams.set(padded.subarray(w * window * width, (w * window + length) * width), at);
    at += length * width;
  }
  return { lengths, streams };
}

/** Some texts that go through together. */
export interface Chunk {
  lengths: number[];
  /** Their first token. */
  first: number;
  rows: number;
}

export function* chunksOf(lengths: readonly number[]): Generator<Chunk> {
  let chunk: Chunk = { lengths: [], first: 0, rows: 0 };
  for (const length of lengths) {
    if (chunk.rows > 0 && chunk.rows + length > rowsTogether) {
      yield chunk;
      chunk = { lengths: [], first: chunk.first + chunk.rows, rows: 0 };
    }
    chunk.lengths.push(length);
    chunk.rows += length;
  }
  yield chunk;
}

/** What runs texts through parts of blocks. */
export interface TextRunner {
  backend: Backend;
  spec: ModelSpec;
  signal?: AbortSignal;
}

/** A part of a block on the backend. */
export class LoadedPart implements Disposable {
  readonly #caches: KvCache[];
  readonly #x: Activation;

  private constructor(
    readonly runner: TextRunner,
    readonly blocks: Blocks,
    readonly attends: boolean,
    layers: KvCacheSpec["layers"],
    chunks: readonly Chunk[],
  ) {
    const { backend, spec } = runner;
    // What does not attend keeps nothing, whatever the text.
    const most = attends ? Math.max(...chunks.map(({ lengths }) => lengths.length)) : 1;
    const slots = attends ? Math.max(...chunks.flatMap(({ lengths }) => lengths)) : 1;
    this.#caches = Array.from({ length: most }, () => backend.createKvCache({ layers, slots }));
    this.#x = backend.allocate(Math.max(...chunks.map(({ rows }) => rows)), spec.hiddenSize);
  }

  /** @param chunks that it is to run */
  static async load(
    runner: TextRunner,
    { spec: block, source }: LoadableBlock,
    part: BlockPart,
    chunks: readonly Chunk[],
  ): Promise<LoadedPart> {
    const { backend, spec, signal } = runner;
    const only: BlockSpec = { steps: part.steps };
    const blocks = await loadBlocks({ ...spec, blocks: [only] }, source, backend, { weights: "f32", signal });
    const attends = findStep(only, "attend") !== undefined;
    return new LoadedPart(runner, blocks, attends, [keptBy(findStep(block, "attend")!)], chunks);
  }

  /** Runs a chunk of texts; their streams become what leaves the part. */
  async run({ lengths, rows }: Chunk, streams: Float32Array, tap?: Tap): Promise<void> {
    const { backend } = this.runner;
    const x = this.#x.rowRange(0, rows);
    backend.write(x, streams);
    const parts = (this.attends ? lengths : [rows]).map((rows, i) => ({ rows, cache: this.#caches[i], start: 0 }));
    await this.blocks.runTogether(0, x, parts, { tap });
    streams.set(await backend.read(x));
  }

  [Symbol.dispose](): void {
    for (const cache of this.#caches) cache[Symbol.dispose]();
    this.runner.backend.release(this.#x);
    this.blocks[Symbol.dispose]();
  }
}

/**
 * Runs texts through a part of a block; their streams become what leaves it.
 * @param onInput told what enters the part's output map: f32 [rows, cols], of the tokens from `first` on
 */
export async function runPart(
  runner: TextRunner,
  block: LoadableBlock,
  part: BlockPart,
  { lengths, streams }: Texts,
  onInput?: (values: Float32Array, first: number) => void,
): Promise<void> {
  const { backend, spec, signal } = runner;
  const chunks = [...chunksOf(lengths)];
  const width = spec.hiddenSize;
  using loaded = await LoadedPart.load(runner, block, part, chunks);
  for (const chunk of chunks) {
    await breathe(signal);
    const stream = streams.subarray(chunk.first * width, (chunk.first + chunk.rows) * width);
    const onActivation = async (_layer: number, _site: string, activation: Activation) =>
      onInput!(await backend.read(activation), chunk.first);
    await loaded.run(chunk, stream, onInput && { sites: [part.output!.site], onActivation });
    const bad = firstNonFiniteOf(stream);
    if (bad >= 0) throw nonFiniteError(`behind ${block.name}`, stream[bad]);
  }
}

import type { ModelSpec } from "../../arch/index.js";
import { breathe, type JobOptions, NonFiniteError, Stage, UsageError } from "../../core/index.js";
import type { Checkpoint } from "../../io/index.js";
import type { BackwardOptions, TextWindows } from "../../pipeline/index.js";
import { embedWindows } from "../../pipeline/internal.js";
import type { Batch, BatchArray } from "../objective.js";
import type { FloatArray } from "../values.js";
import { BlockObjectives, inputName, outerName } from "./blockObjectives.js";
import { fillingName, fillingOf } from "./filling.js";
import { HeadObjectives } from "./headObjectives.js";
import { refuseUntraced } from "./steps.js";

/** Texts, with what is to be predicted where that is not the next token of the window. */
export interface AskedWindows extends TextWindows {
  /** i32 [tokens]: what follows each token; the loss is the mean over all. Default: the tokens of the window, none behind its last. */
  next?: Int32Array;
}

/** Who is told of gradients. */
export interface Asked {
  /** Windows whose mean loss is one gradient. */
  together: number;
  /** @param gradients dL/dW [rows, cols] by id of each linear map @param weights W, by the same ids */
  visit(layer: number, gradients: ReadonlyMap<string, FloatArray>, weights: ReadonlyMap<string, FloatArray>): void;
  /** Told the loss of every gradient. */
  onLoss?(loss: number): void;
}

/** As `BlockwiseModel.backpropagate`, once. */
export async function* backpropagate(
  checkpoint: Checkpoint,
  spec: ModelSpec,
  windows: AskedWindows,
  asked: Asked,
  { change, ...job }: BackwardOptions = {},
): AsyncGenerator<number> {
  using model = new BlockwiseModel(checkpoint, spec, windows.window, change);
  yield* model.backpropagate(windows, asked, job);
}

/** A model of which one block at a time is in memory as numbers: its weights are read, from wherever they lie, when they are used. */
export class BlockwiseModel implements Disposable {
  readonly #blocks: BlockObjectives;
  readonly #head: HeadObjectives;

  /** @param length tokens of a window */
  constructor(
    readonly checkpoint: Checkpoint,
    readonly spec: ModelSpec,
    readonly length: number,
    change?: BackwardOptions["change"],
  ) {
    refuseUntraced(spec, { classifier: true });
    this.#blocks = new BlockObjectives(checkpoint, spec, length, change);
    this.#head = new HeadObjectives(checkpoint, spec, length);
  }

  /**
   * Forward through all blocks, keeping what enters each, f32 [tokens, hiddenSize]; then backward, a block at a time: its weights are
   * read, and dL/d(what leaves it) becomes the gradients of its maps and dL/d(what enters it).
   * @returns the blocks as all of their gradients have been told, from the last to the first
   */
  async *backpropagate(
    windows: AskedWindows,
    { together, visit, onLoss }: Asked,
    { signal, onProgress }: JobOptions = {},
  ): AsyncGenerator<number> {
    const layers = this.spec.blocks.length;
    const passes = this.#passes(windows, together, 2 * layers + 1, { signal, onProgress });
    const streams = await this.#forward(windows, passes);
    const last = streams.pop()!;
    const outer = new Float32Array(last.length);
    const head = await this.#head.load();
    await passes("head", async (pass) => {
      const { shape, start, end } = pass;
      const { loss, gradient } = await head.lossAndGradient(
        shape,
        last.subarray(start, end),
        ...this.#labels(windows, pass),
      );
      onLoss?.(loss);
      outer.set(gradient, start);
    });
    for (let layer = layers - 1; layer >= 0; layer--) {
      const { gradientsOf, maps } = await this.#blocks.load(layer);
      const before = streams.pop()!;
      await passes(`block ${layer + 1} of ${layers}, backward`, async ({ start, end, shape, batch }) => {
        const own = outer.subarray(start, end);
        const { inner, input } = await gradientsOf(before.subarray(start, end), {
          ...batch,
          [outerName]: { shape, values: own },
        });
        for (const [id, gradient] of inner) checkGradient(gradient, `${id} in block ${layer}`);
        visit(layer, inner, maps);
        own.set(input);
      });
      yield layer;
    }
  }

  /** The mean loss of windows that go through the blocks together. */
  async loss(windows: AskedWindows, job: JobOptions = {}): Promise<number> {
    const count = windows.tokens.length / windows.window;
    const passes = this.#passes(windows, count, this.spec.blocks.length + 1, job);
    const last = (await this.#forward(windows, passes)).pop()!;
    const head = await this.#head.load();
    let loss = 0;
    await passes("head", async (pass) => {
      loss = await head.loss(pass.shape, last, ...this.#labels(windows, pass));
    });
    return loss;
  }

  [Symbol.dispose](): void {
    this.#blocks[Symbol.dispose]();
    this.#head[Symbol.dispose]();
  }

  /** What enters each block, and what leaves the last. */
  async #forward({ tokens, window }: AskedWindows, passes: EachPass): Promise<Float32Array[]> {
    const layers = this.spec.blocks.length;
    const streams = [await embedWindows(this.checkpoint, this.spec, tokens, window)];
    for (let layer = 0; layer < layers; layer++) {
      const { predict } = await this.#blocks.load(layer);
      const [before, after] = [streams[layer], new Float32Array(streams[layer].length)];
      await passes(`block ${layer + 1} of ${layers}, forward`, async ({ start, end, shape, batch }) => {
        after.set(await predict({ ...batch, [inputName]: { shape, values: before.subarray(start, end) } }), start);
      });
      streams.push(after);
    }
    return streams;
  }

  /** What the rows of a pass are to predict, and what their mean loss is multiplied by. */
  #labels({ tokens, window, labels, next }: AskedWindows, { first, sequences }: Pass): [BatchArray, number] {
    const [from, to] = [first * window, (first + sequences) * window];
    const ints = (values: Int32Array) => ({ shape: [values.length], values });
    if (labels !== undefined) return [ints(labels.slice(first, first + sequences)), 1];
    if (next !== undefined) return [ints(next.slice(from, to)), 1];
    // Of a text, the mean over the rows that predict something: all but the last of every window.
    return [ints(followers(tokens.subarray(from, to), window)), window / (window - 1)];
  }

  #passes(
    { tokens, window: length, lengths, labels }: AskedWindows,
    together: number,
    rounds: number,
    { signal, onProgress }: JobOptions,
  ): EachPass {
    const count = tokens.length / length;
    if (length < 2 || count < 1)
      throw new UsageError(`${tokens.length} tokens in windows of ${length} predict nothing`);
    if (this.spec.head.kind === "classifier" && labels === undefined)
      throw new UsageError("the gradient of a classifier's loss needs labelled texts");
    const stage = new Stage("gradients of the loss", Math.ceil(count / together) * rounds, "passes", onProgress);
    const width = length * this.spec.hiddenSize;
    return async (at, visit) => {
      for (let first = 0; first < count; first += together) {
        await breathe(signal);
        const sequences = Math.min(together, count - first);
        const filling = lengths && fillingOf(lengths.subarray(first, first + sequences), length);
        await visit({
          first,
          sequences,
          start: first * width,
          end: (first + sequences) * width,
          batch: filling === undefined ? {} : { [fillingName]: filling },
          shape: [sequences * length, this.spec.hiddenSize],
        });
        stage.advance(1, at);
      }
    };
  }
}

type EachPass = (at: string, visit: (pass: Pass) => Promise<void>) => Promise<void>;

/** Windows that go through a block together. */
interface Pass {
  /** Window. */
  first: number;
  sequences: number;
  /** Of the streams. */
  start: number;
  end: number;
  /** Arrays of every batch. */
  batch: Batch;
  /** Of the stream of the pass. */
  shape: number[];
}

/** No token: what the last position of a window would predict. */
const unknown = -1;

/** The tokens that follow those of windows; none behind the last of each. */
const followers = (tokens: Uint32Array, length: number): Int32Array =>
  Int32Array.from(tokens, (_, t) => (t % length === length - 1 ? unknown : tokens[t + 1]));

/** @throws NonFiniteError */
function checkGradient(gradient: FloatArray, where: string): void {
  let squares = 0;
  for (const value of gradient) squares += value * value;
  if (!Number.isFinite(squares)) throw new NonFiniteError(`the gradient of ${where} is not finite`);
}

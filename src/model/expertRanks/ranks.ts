import type { ModelSpec } from "../../arch/index.js";
import { DeviceError, UsageError } from "../../core/index.js";
import type { RankLink } from "./link.js";
import { decodeAnswer, type ExpertWork, encodeWork, type FromRank, type RankModel } from "./messages.js";
import { checkRanks, shareOf } from "./share.js";

/** What went between rank 0 and the others, in bytes. */
export interface RankTraffic {
  /** Rows that were sent to other ranks, and the outputs of experts that came back, f32. */
  dispatched: number;
  combined: number;
  /** Which rows are for which experts, and headers. */
  overhead: number;
  messages: number;
}

interface Waiting {
  resolve(y: Float32Array): void;
  reject(error: Error): void;
}

/**
 * Expert parallelism as rank 0 sees it (DeepSeek-V3, arXiv 2412.19437, section 3.2): other threads, processes or machines
 * that hold experts of every layer. Rank 0 runs all else and its own experts, sends rows to the ranks whose experts they are
 * for, each row once to each rank, and adds up what comes back in the order in which the router chose: the sums are to the
 * bit those of one rank that holds all experts, where the ranks compute alike.
 */
export class ExpertRanks implements Disposable {
  readonly #links: readonly RankLink[];
  readonly #ready: Promise<RankModel[]>;
  readonly #waiting: Map<number, Waiting>[];
  #next = 0;
  #failure: Error | undefined;
  #traffic: RankTraffic = { dispatched: 0, combined: 0, overhead: 0, messages: 0 };

  /** @param links to ranks 1, 2, … */
  constructor(links: readonly RankLink[]) {
    this.#links = links;
    this.#waiting = links.map(() => new Map());
    this.#ready = Promise.all(links.map((link, l) => this.#listen(link, l + 1)));
    // Whoever waits for the ranks hears of it; nobody must.
    this.#ready.catch(() => {});
  }

  /** Ranks, this one included. */
  get count(): number {
    return this.#links.length + 1;
  }

  /** Since it was taken last. */
  takeTraffic(): RankTraffic {
    const taken = this.#traffic;
    this.#traffic = { dispatched: 0, combined: 0, overhead: 0, messages: 0 };
    return taken;
  }

  /**
   * Waits until all ranks hold their experts.
   * @throws UsageError where they hold those of another model; DeviceError where one has ended
   */
  async ready(spec: ModelSpec): Promise<void> {
    checkRanks(spec, this.count);
    const expected = rankModel(spec);
    for (const [l, model] of (await this.#ready).entries()) {
      if (JSON.stringify(model) === JSON.stringify(expected)) continue;
      throw new UsageError(
        `rank ${l + 1} holds experts of another model: ${JSON.stringify(model)}, not ${JSON.stringify(expected)}`,
      );
    }
  }

  /** Which experts of a layer lie here. */
  own(experts: number): number {
    return shareOf(experts, 0, this.count).count;
  }

  /** The rank of an expert, and its place there. */
  placeOf(expert: number, experts: number): { rank: number; expert: number } {
    // The last whose share begins at the expert or before it: rank · experts / count < expert + 1.
    const rank = Math.floor(((expert + 1) * this.count - 1) / experts);
    return { rank, expert: expert - shareOf(experts, rank, this.count).first };
  }

  /** @returns f32 [slots, width]. @throws DeviceError when the rank failed or has ended */
  run(rank: number, work: ExpertWork): Promise<Float32Array> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const id = this.#next;
    this.#next = (this.#next + 1) % 2 ** 32;
    const frame = encodeWork({ kind: "work", id, ...work });
    this.#traffic.dispatched += work.x.byteLength;
    this.#traffic.overhead += frame.length - work.x.byteLength;
    this.#traffic.messages++;
    return new Promise((resolve, reject) => {
      this.#waiting[rank - 1].set(id, { resolve, reject });
      this.#links[rank - 1].send(frame);
    });
  }

  [Symbol.dispose](): void {
    this.#fail(new DeviceError("the expert ranks were closed"));
    for (const link of this.#links) link.close();
  }

  #listen(link: RankLink, rank: number): Promise<RankModel> {
    return new Promise((resolve, reject) => {
      const fail = (error: Error) => {
        this.#fail(error);
        reject(error);
      };
      link.listen(
        (frame) => {
          try {
            const answer = decodeAnswer(frame);
            if (answer.kind === "ready") {
              if (answer.rank === rank && answer.ranks === this.count) resolve(answer.model);
              else fail(new UsageError(`rank ${answer.rank} of ${answer.ranks} where ${rank} of ${this.count} is due`));
            } else this.#settle(rank, answer, frame.length, fail);
          } catch (error) {
            fail(error as Error);
          }
        },
        (reason) => fail(new DeviceError(`expert rank ${rank} has ended${reason ? `: ${reason.message}` : ""}`)),
      );
    });
  }

  #settle(
    rank: number,
    answer: Exclude<FromRank, { kind: "ready" }>,
    bytes: number,
    fail: (error: Error) => void,
  ): void {
    const failed = answer.kind === "failure" && new DeviceError(`expert rank ${rank}: ${answer.message}`);
    if (answer.id === undefined) {
      if (failed) fail(failed);
      return;
    }
    const waiting = this.#waiting[rank - 1].get(answer.id);
    this.#waiting[rank - 1].delete(answer.id);
    this.#traffic.messages++;
    if (answer.kind === "result") {
      this.#traffic.combined += answer.y.byteLength;
      this.#traffic.overhead += bytes - answer.y.byteLength;
      waiting?.resolve(answer.y);
    } else if (failed) waiting?.reject(failed);
  }

  /** Nothing more comes: all that wait are told. */
  #fail(error: Error): void {
    this.#failure ??= error;
    for (const waiting of this.#waiting) {
      for (const { reject } of waiting.values()) reject(error);
      waiting.clear();
    }
  }
}

export function rankModel({ blocks, hiddenSize }: ModelSpec): RankModel {
  const experts = Math.max(
    0,
    ...blocks.flatMap(({ steps }) => steps.flatMap((step) => (step.do === "mixture" ? step.experts.length : []))),
  );
  return { layers: blocks.length, hiddenSize, experts };
}

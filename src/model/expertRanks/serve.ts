import { type BlockSpec, findStep, type MixtureStep, type ModelSpec, type Step } from "../../arch/index.js";
import { UsageError } from "../../core/index.js";
import type { Activation, Backend, ExpertMatrices, Region } from "../../kernels/index.js";
import { BufferPool } from "../buffers.js";
import { loadExperts } from "../load.js";
import type { LoadModelOptions } from "../loadOptions.js";
import { runExperts } from "../runExperts.js";
import type { TensorSource } from "../tensorRows.js";
import { Turns } from "../turns.js";
import type { RankLink } from "./link.js";
import { decodeWork, type ExpertWork, encodeAnswer } from "./messages.js";
import { rankModel } from "./ranks.js";
import { blocksOfRank, checkRanks } from "./share.js";
import { thresholdsOf } from "./thresholds.js";

/** One rank of several, 1 or more; rank 0 is the model that sends rows. */
export interface ServeExpertsOptions extends Pick<LoadModelOptions, "weights" | "structure" | "signal" | "onProgress"> {
  rank: number;
  ranks: number;
}

/**
 * Loads this rank's experts of every layer and nothing else, and runs rows that come over the link, until it ends.
 * @throws what loading throws; `reportFailure` tells rank 0
 */
export async function serveExperts(
  spec: ModelSpec,
  source: TensorSource,
  backend: Backend,
  options: ServeExpertsOptions,
  link: RankLink,
): Promise<void> {
  const { rank, ranks } = options;
  const turns = new Turns();
  let experts: ExpertRank | undefined;
  const answer = async (frame: Uint8Array): Promise<void> => {
    let id: number | undefined;
    try {
      const work = decodeWork(frame, spec.hiddenSize);
      id = work.id;
      const y = await turns.run(() => experts!.run(work));
      link.send(encodeAnswer({ kind: "result", id, y }));
    } catch (error) {
      link.send(encodeAnswer({ kind: "failure", id, message: (error as Error).message }));
    }
  };
  const ended = new Promise<void>((resolve, reject) => {
    link.listen(
      (frame) => void answer(frame),
      (reason) => (reason === undefined ? resolve() : reject(reason)),
    );
  });
  // Looked at once the experts are loaded.
  ended.catch(() => {});
  checkRanks(spec, ranks);
  const own = blocksOfRank(spec.blocks, rank, ranks).map(({ steps }) => ({
    steps: steps.filter((step) => step.do === "mixture"),
  }));
  const loaded = await loadExperts(own, source, backend, options);
  using running = new ExpertRank(backend, spec.hiddenSize, own, loaded);
  experts = running;
  link.send(encodeAnswer({ kind: "ready", rank, ranks, model: rankModel(spec) }));
  await ended;
}

/** Tells rank 0 that this rank will not run anything. */
export const reportFailure = (link: RankLink, error: Error): void =>
  link.send(encodeAnswer({ kind: "failure", message: error.message }));

/** The experts of one rank, ready to run. */
class ExpertRank implements Disposable {
  readonly #buffers: BufferPool;

  constructor(
    readonly backend: Backend,
    readonly hiddenSize: number,
    readonly blocks: readonly BlockSpec[],
    readonly loaded: { region: Region; experts: readonly ReadonlyMap<Step, ExpertMatrices>[] },
  ) {
    this.#buffers = new BufferPool(
      backend,
      hiddenSize,
      blocks,
      blocks.map(() => 0),
    );
  }

  /** @returns f32 [slots, hiddenSize] */
  async run({ layer, x, rows, slotRows, slotExperts, thresholds }: ExpertWork): Promise<Float32Array> {
    const { backend } = this;
    const step: MixtureStep | undefined = this.blocks[layer] && findStep(this.blocks[layer], "mixture");
    if (step === undefined) throw new UsageError(`layer ${layer} has no experts`);
    if (slotExperts.some((expert) => expert >= step.experts.length)) {
      throw new UsageError(`layer ${layer} has ${step.experts.length} experts here`);
    }
    const weights = new Float32Array(slotRows.length);
    const routing = backend.routeTo({ rows: slotRows, experts: slotExperts, weights }, rows);
    if (routing.perRow > this.#buffers.slots) throw new UsageError(`${routing.perRow} slots of one row`);
    const from: Activation = backend.allocate(rows, this.hiddenSize);
    try {
      backend.write(from, x);
      const out = await runExperts(step, this.loaded.experts[layer], {
        backend,
        buffers: this.#buffers.forRows(rows, layer),
        from,
        routing,
        thresholds: thresholds && thresholdsOf(step, thresholds),
      });
      return await backend.read(out);
    } finally {
      backend.release(from);
    }
  }

  [Symbol.dispose](): void {
    this.#buffers[Symbol.dispose]();
    this.loaded.region[Symbol.dispose]();
  }
}

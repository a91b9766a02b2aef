import { openCheckpoint } from "../io/index.js";
import { resolveModel } from "../io/index.node.js";
import { openDevice } from "../kernels/internal.js";
import { describeDecoder, type RankLink, reportFailure, serveExperts } from "../model/index.js";
import { weightsOf } from "../pipeline/internal.js";
import type { RankTask } from "./expertRanks.js";

/** What a rank does from its start until its link ends. @throws what loading throws, of which rank 0 is told */
export async function runExpertRank({ model, threads, weights, ...how }: RankTask, link: RankLink): Promise<void> {
  try {
    const checkpoint = await openCheckpoint(await resolveModel(model));
    try {
      const { config } = await describeDecoder(checkpoint);
      using backend = await openDevice("cpu", { threads });
      const format = weightsOf(checkpoint.artifact, weights);
      await serveExperts(config.spec, checkpoint, backend, { ...how, weights: format }, link);
    } finally {
      await checkpoint.close();
    }
  } catch (error) {
    reportFailure(link, error as Error);
    throw error;
  }
}

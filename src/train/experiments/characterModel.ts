import { readModelSpec } from "../../arch/index.js";
import { TokenWindows } from "../data/tokens.js";
import type { EngineDevice } from "../engine/engine.js";
import { decoderObjective } from "../engine/open.js";
import { type ClusterOptions, clusterPlan } from "../models/clusterOptions.js";
import { centroidControl, clusterParameters, initialClusters } from "../models/clusterParameters.js";
import { initialWeights, modelParameters } from "../models/parameters.js";
import type { RouterOptions } from "../models/routerOptions.js";
import type { BatchControl, Objective } from "../objective.js";
import { randomFor } from "../seeds.js";
import type { FloatArray, ParameterInfo } from "../values.js";

/** Sizes of a small Llama over characters, for experiments that compare methods on one CPU core. */
export interface CharacterModelSize {
  layers: number;
  hiddenSize: number;
  intermediateSize: number;
  heads: number;
  window: number;
  batchSize: number;
}

export interface CharacterModel {
  objective: Objective;
  parameters: readonly ParameterInfo[];
  initial(seed: number): Map<string, FloatArray>;
  /** Moves the centroids of attention by clusters. */
  control?(seed: number): BatchControl;
  train: TokenWindows;
  /** The last tenth of the text. */
  test: TokenWindows;
}

/** The MLPs of a small model as mixtures of experts. */
export interface CharacterExperts extends RouterOptions {
  experts: number;
  expertsPerToken: number;
}

/** What such a model has in place of the parts of a Llama. */
export interface CharacterVariant {
  /** For its MLPs. */
  mixture?: CharacterExperts;
  /** For its attention. */
  clusters?: ClusterOptions;
}

/** A text as numbers of its characters: how many kinds there are, and its first nine tenths to learn and the rest to test, in windows. */
export function characterWindows(
  text: string,
  { window, batchSize }: { window: number; batchSize: number },
  seed: number,
) {
  const characters = [...new Set(text)].sort();
  const ids = new Map(characters.map((character, id) => [character, id]));
  const tokens = Uint32Array.from(text, (character) => ids.get(character)!);
  const cut = Math.floor(0.9 * tokens.length);
  const windowsOf = (part: Uint32Array) => new TokenWindows(part, window, batchSize, seed);
  return { kinds: characters.length, train: windowsOf(tokens.subarray(0, cut)), test: windowsOf(tokens.subarray(cut)) };
}

/** A decoder without a checkpoint, over the characters that a text has: a Llama, or a Mixtral. */
export async function characterModel(
  text: string,
  size: CharacterModelSize,
  seed: number,
  device: EngineDevice,
  { mixture, clusters }: CharacterVariant = {},
): Promise<CharacterModel> {
  const { kinds, train, test } = characterWindows(text, size, seed);
  const { layers, hiddenSize, intermediateSize, heads, window } = size;
  const { experts, expertsPerToken, ...router } = mixture ?? {};
  const spec = readModelSpec(
    {
      model_type: mixture === undefined ? "llama" : "mixtral",
      vocab_size: kinds,
      hidden_size: hiddenSize,
      intermediate_size: intermediateSize,
      num_hidden_layers: layers,
      num_attention_heads: heads,
      num_key_value_heads: heads,
      max_position_embeddings: window,
      rms_norm_eps: 1e-5,
      rope_theta: 10_000,
      ...(mixture && { num_local_experts: experts, num_experts_per_tok: expertsPerToken }),
    },
    "character model",
  );
  const sizes = { blocks: layers, hiddenSize, heads, width: hiddenSize / heads };
  const plan = clusters && clusterPlan(clusters, window, heads);
  const own = modelParameters(spec);
  const learnt = plan === undefined ? [] : clusterParameters(plan, sizes);
  const parameters = [...own, ...learnt];
  return {
    objective: await decoderObjective(spec, parameters, window, device, { router: mixture && router, clusters }),
    parameters,
    initial: (seed) =>
      new Map([
        ...initialWeights(own, randomFor(seed, "weights"), 0.05),
        ...initialClusters(learnt, randomFor(seed, "clusters")),
      ]),
    control: plan && ((seed) => centroidControl(plan, sizes, randomFor(seed, "centroids"))),
    train,
    test,
  };
}

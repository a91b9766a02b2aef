import { parseModelConfig } from "../../arch/index.js";
import { TokenWindows } from "../data/tokens.js";
import type { EngineDevice } from "../engine/engine.js";
import type { MoeConfig } from "../models/moeConfig.js";
import type { Objective } from "../objective.js";
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
  train: TokenWindows;
  /** The last tenth of the text. */
  test: TokenWindows;
}

/** A decoder without a checkpoint, over the characters that a text has. */
export async function characterModel(
  text: string,
  size: CharacterModelSize,
  seed: number,
  device: EngineDevice,
  moe?: MoeConfig,
): Promise<CharacterModel> {
  const [{ startEngine }, { tracedObjective }, { decoder }, { decoderParameters, initialDecoder }] = await Promise.all([
    import("../engine/engine.js"),
    import("../engine/tracedObjective.js"),
    import("../models/decoder.js"),
    import("../models/decoderParameters.js"),
  ]);
  await startEngine(device);
  const characters = [...new Set(text)].sort();
  const ids = new Map(characters.map((character, id) => [character, id]));
  const tokens = Uint32Array.from(text, (character) => ids.get(character)!);
  const { layers, hiddenSize, intermediateSize, heads, window, batchSize } = size;
  const config = parseModelConfig(
    {
      model_type: "llama",
      vocab_size: characters.length,
      hidden_size: hiddenSize,
      intermediate_size: intermediateSize,
      num_hidden_layers: layers,
      num_attention_heads: heads,
      max_position_embeddings: window,
      rms_norm_eps: 1e-5,
    },
    "character model",
  );
  const tensor = (name: string, ...shape: number[]) => ({ name: `${name}.weight`, shape });
  const mlp = (at: string) =>
    moe === undefined
      ? [
          tensor(`${at}.mlp.gate_proj`, intermediateSize, hiddenSize),
          tensor(`${at}.mlp.up_proj`, intermediateSize, hiddenSize),
          tensor(`${at}.mlp.down_proj`, hiddenSize, intermediateSize),
        ]
      : [
          tensor(`${at}.block_sparse_moe.gate`, moe.experts, hiddenSize),
          ...Array.from({ length: moe.experts }, (_, e) => `${at}.block_sparse_moe.experts.${e}`).flatMap((expert) => [
            tensor(`${expert}.w1`, intermediateSize, hiddenSize),
            tensor(`${expert}.w2`, hiddenSize, intermediateSize),
            tensor(`${expert}.w3`, intermediateSize, hiddenSize),
          ]),
        ];
  const block = (at: string) => [
    tensor(`${at}.input_layernorm`, hiddenSize),
    ...["q_proj", "k_proj", "v_proj", "o_proj"].map((name) =>
      tensor(`${at}.self_attn.${name}`, hiddenSize, hiddenSize),
    ),
    tensor(`${at}.post_attention_layernorm`, hiddenSize),
    ...mlp(at),
  ];
  const parameters = decoderParameters([
    tensor("model.embed_tokens", characters.length, hiddenSize),
    ...Array.from({ length: layers }, (_, layer) => block(`model.layers.${layer}`)).flat(),
    tensor("model.norm", hiddenSize),
    tensor("lm_head", characters.length, hiddenSize),
  ]);
  const cut = Math.floor(0.9 * tokens.length);
  return {
    objective: tracedObjective(decoder(config, parameters, window, { moe })),
    parameters,
    initial: (seed) => initialDecoder(parameters, randomFor(seed, "weights"), 0.05),
    train: new TokenWindows(tokens.subarray(0, cut), window, batchSize, seed),
    test: new TokenWindows(tokens.subarray(cut), window, batchSize, seed),
  };
}

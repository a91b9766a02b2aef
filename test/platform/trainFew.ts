import { readModelSpec } from "../../src/arch/index.js";
import { Random } from "../../src/core/index.js";
import {
  cosine,
  decoderObjective,
  type EngineDevice,
  initialWeights,
  modelParameters,
  Training,
  trainMethods,
} from "../../src/train/index.js";
import { randomFor } from "../../src/train/internal.js";

const spec = readModelSpec(
  {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_act: "silu",
    hidden_size: 32,
    intermediate_size: 64,
    num_hidden_layers: 2,
    num_attention_heads: 2,
    num_key_value_heads: 1,
    max_position_embeddings: 64,
    rms_norm_eps: 1e-5,
    vocab_size: 96,
  },
  "config.json",
);
const [window, sequences, steps] = [16, 4, 6];

/** A few steps of a tiny decoder, 2:4 by SR-STE, on a device. @returns the losses, and the share of zeros at the end */
export async function trainFew(device: EngineDevice): Promise<{ losses: number[]; zeros: number }> {
  const parameters = modelParameters(spec);
  using objective = await decoderObjective(spec, parameters, window, device);
  const { method } = await trainMethods["sr-ste"]();
  const training = new Training({
    objective,
    weights: initialWeights(parameters, randomFor(1, "weights")),
    optimizer: { rate: cosine({ peak: 1e-2, warmup: 1, steps }) },
    steps,
    seed: 1,
    method: (context) => method.start(context, method.options.parse({ pattern: "2:4" })),
    onDevice: device !== "cpu",
  });
  const random = new Random(2);
  const losses: number[] = [];
  for (let step = 0; step < steps; step++) {
    const ids = Int32Array.from({ length: window * sequences + 1 }, () => random.integer(8));
    const { loss } = await training.advance({
      tokens: { shape: [window * sequences], values: ids.subarray(0, -1) },
      label: { shape: [window * sequences], values: ids.subarray(1) },
    });
    losses.push(loss);
  }
  await training.synchronise();
  const weights = training.finish();
  const gates = weights.get("model.layers.0.mlp.gate_proj.weight")!;
  return { losses, zeros: gates.filter((w) => w === 0).length / gates.length };
}

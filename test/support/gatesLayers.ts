import { type BlockGates, parseModelConfig } from "../../src/arch/index.js";
import { withLayerGates } from "../../src/arch/internal.js";
import { Random } from "../../src/core/index.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";

/**
 * A golden checkpoint with random gates in front of its layers, which let about 60 % of the tokens through.
 * @param bias far above 0, so that all go through; by default some do not
 */
export async function gatesLayers(
  name: string,
  { units = "block", kind = "hard", bias = 0.25 }: Partial<BlockGates> & { bias?: number } = {},
): Promise<MemoryCheckpoint> {
  const checkpoint = await MemoryCheckpoint.golden(name);
  const config = withLayerGates(parseModelConfig(checkpoint.config, "config.json"), { units, kind });
  const random = new Random(12);
  for (const { map } of config.spec.blocks.flatMap(({ gates }) => gates!)) {
    const deviation = 1 / Math.sqrt(map.cols);
    checkpoint.set(
      map.weight.tensor,
      [1, map.cols],
      Float32Array.from({ length: map.cols }, () => deviation * random.normal()),
    );
    checkpoint.set(map.bias!.tensor, [1], Float32Array.of(bias));
  }
  checkpoint.artifact = { rarefy: 2, blocks: [...config.blocks] };
  return checkpoint;
}

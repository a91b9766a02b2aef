import { readModelSpec } from "../../src/arch/index.js";
import { Random } from "../../src/core/index.js";
import { type Adapter, addPair, type Checkpoint } from "../../src/io/index.js";
import { readReference, writeReference } from "../../src/io/internal.js";
import { adaptationsOf } from "../../src/model/index.js";
import { modulesOf } from "../../src/train/index.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";

const specOf = (config: unknown) => readModelSpec(config, "config.json");

/** A LoRA adapter of random numbers for modules of a model. */
export function randomAdapter(config: unknown, targets: readonly string[], rank: number): Adapter {
  const random = new Random(7);
  const draw = (length: number) => Float32Array.from({ length }, () => 0.1 * random.normal());
  return {
    kind: "lora",
    modules: new Map(
      modulesOf(specOf(config), targets).map(({ name, rows, cols }) => [
        name,
        { a: draw(rank * cols), b: draw(rows * rank), rank, rows, cols, scale: 1.5 },
      ]),
    ),
  };
}

/** A checkpoint with an adapter in its weights. */
export async function mergeAdapter(checkpoint: MemoryCheckpoint, adapter: Adapter): Promise<Checkpoint> {
  const changed = new MemoryCheckpoint(checkpoint.config, new Map(checkpoint.tensors));
  for (const [{ weight }, adaptation] of adaptationsOf(specOf(checkpoint.config), adapter)) {
    if (adaptation.kind !== "lora") continue;
    const whole = changed.values(weight.tensor).slice();
    writeReference(whole, weight, addPair(await readReference(changed, weight), adaptation.pair));
    changed.set(weight.tensor, changed.tensors.get(weight.tensor)!.shape, whole);
  }
  return changed;
}

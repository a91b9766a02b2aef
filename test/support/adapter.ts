import { readModelSpec } from "../../src/arch/index.js";
import { Random } from "../../src/core/index.js";
import { type Adapter, addPair, type Checkpoint, rescale } from "../../src/io/index.js";
import { readReference, writeReference } from "../../src/io/internal.js";
import { adaptationsOf } from "../../src/model/index.js";
import { modulesOf, routedAdapterMethods } from "../../src/train/index.js";
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
  for (const [{ weight, cols }, adaptation] of adaptationsOf(specOf(checkpoint.config), adapter)) {
    if (adaptation.kind !== "lora" && adaptation.kind !== "ia3") throw new Error("a mixture cannot be merged");
    const whole = changed.values(weight.tensor).slice();
    const own = await readReference(changed, weight);
    const merged =
      adaptation.kind === "lora" ? addPair(own, adaptation.pair) : rescale(own, cols, adaptation.rescaling);
    writeReference(whole, weight, merged);
    changed.set(weight.tensor, changed.tensors.get(weight.tensor)!.shape, whole);
  }
  return changed;
}

/** A mixture of adapters of random numbers, for modules of a model; gates differ from token to token, and some factors are below 0. */
export async function randomMixture(
  config: unknown,
  kind: "molora" | "mov",
  targets: readonly string[],
  given: Record<string, unknown> = {},
  seed = 11,
): Promise<Adapter> {
  const { method } = await routedAdapterMethods[kind]();
  const options = method.options.parse(given);
  const random = new Random(seed);
  const modules = modulesOf(specOf(config), targets);
  const described = modules.flatMap((module) => method.parameters(module, options, random));
  return method.adapter(modules, randomValues(described, random), options);
}

/** Values far from those that training begins with. */
export const randomValues = (described: readonly { name: string; first: ArrayLike<number> }[], random: Random) =>
  new Map(
    described.map(({ name, first }) => {
      const [at, by] = name.includes("mov_l") ? [1, 0.8] : name.endsWith("router") ? [0, 1] : [0, 0.1];
      return [name, Float32Array.from(first, () => at + by * random.normal())];
    }),
  );

import { UsageError } from "../../core/index.js";
import { fromFloat32 } from "../../tensor/index.js";
import { createFile, type FileSinks } from "../byteSink.js";
import { jsonBytes } from "../json.js";
import { writeSafetensorsFile } from "../safetensorsWriter.js";
import { type Adapter, adapterConfigName, adapterWeightsName, modulePrefix } from "./adapter.js";

/**
 * Writes an adapter directory that PEFT reads: values in f32, the config last.
 * @throws UsageError for pairs whose rank or scale differ, which one config cannot say
 */
export async function writeAdapter(sinks: FileSinks, adapter: Adapter): Promise<void> {
  await writeSafetensorsFile(
    sinks,
    adapterWeightsName,
    tensorsOf(adapter).map(([name, shape, values]) => ({
      name: modulePrefix + name,
      shape,
      dtype: "F32",
      bytes: () => [fromFloat32("F32", values)],
    })),
  );
  await createFile(sinks, adapterConfigName, (sink) => sink.write(jsonBytes(configOf(adapter))));
}

function tensorsOf(adapter: Adapter): [name: string, shape: number[], values: Float32Array][] {
  if (adapter.kind === "ia3") {
    return Array.from(adapter.modules, ([module, { factors, of }]) => [
      `${module}.ia3_l`,
      of === "outputs" ? [factors.length, 1] : [1, factors.length],
      factors,
    ]);
  }
  return Array.from(adapter.modules).flatMap(
    ([module, { a, b, rank, rows, cols }]): ReturnType<typeof tensorsOf> => [
      [`${module}.lora_A.weight`, [rank, cols], a],
      [`${module}.lora_B.weight`, [rows, rank], b],
    ],
  );
}

const lastName = (module: string) => module.slice(module.lastIndexOf(".") + 1);

function configOf(adapter: Adapter): object {
  const common = {
    base_model_name_or_path: adapter.base ?? null,
    bias: "none",
    inference_mode: true,
    target_modules: [...new Set(Array.from(adapter.modules.keys(), lastName))],
    task_type: "CAUSAL_LM",
  };
  if (adapter.kind === "ia3") {
    const inputs = [...adapter.modules].filter(([, { of }]) => of === "inputs").map(([module]) => lastName(module));
    const { bias, ...own } = common;
    return { peft_type: "IA3", ...own, feedforward_modules: [...new Set(inputs)], fan_in_fan_out: false };
  }
  const [first] = adapter.modules.values();
  for (const [module, { rank, scale }] of adapter.modules) {
    if (rank === first.rank && scale === first.scale) continue;
    throw new UsageError(`${module} has rank ${rank} and scale ${scale}, others ${first.rank} and ${first.scale}`);
  }
  return {
    peft_type: "LORA",
    ...common,
    r: first.rank,
    lora_alpha: first.scale * first.rank,
    lora_dropout: 0,
    fan_in_fan_out: false,
    use_dora: false,
    use_rslora: false,
  };
}

import { UsageError } from "../../core/index.js";
import { fromFloat32 } from "../../tensor/index.js";
import { createFile, type FileSinks } from "../byteSink.js";
import { jsonBytes } from "../json.js";
import { writeSafetensorsFile } from "../safetensorsWriter.js";
import { type Adapter, adapterConfigName, adapterWeightsName, type ExpertRouter, modulePrefix } from "./adapter.js";

/**
 * Writes an adapter directory: values in f32, the config last. PEFT reads LoRA and IA³; of mixtures it knows nothing.
 * @throws UsageError for pairs or mixtures whose rank, scale or experts differ, which one config cannot say
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

type NamedTensor = [name: string, shape: number[], values: Float32Array];

function tensorsOf(adapter: Adapter): NamedTensor[] {
  switch (adapter.kind) {
    case "ia3":
      return Array.from(adapter.modules, ([module, { factors, of }]) => [
        `${module}.ia3_l`,
        of === "outputs" ? [factors.length, 1] : [1, factors.length],
        factors,
      ]);
    case "lora":
      return Array.from(adapter.modules).flatMap(([module, { a, b, rank, rows, cols }]): NamedTensor[] => [
        [`${module}.lora_A.weight`, [rank, cols], a],
        [`${module}.lora_B.weight`, [rows, rank], b],
      ]);
    case "molora":
      return Array.from(adapter.modules).flatMap(
        ([module, { a, b, router, experts, rank, rows, cols }]): NamedTensor[] => [
          [`${module}.molora_A.weight`, [experts, rank, cols], a],
          [`${module}.molora_B.weight`, [experts, rows, rank], b],
          [`${module}.router.weight`, [experts, cols], router],
        ],
      );
    case "mov":
      return Array.from(adapter.modules).flatMap(([module, { factors, router, experts, width }]): NamedTensor[] => [
        [`${module}.mov_l.weight`, [experts, factors.length / experts], factors],
        [`${module}.router.weight`, [experts, width], router],
      ]);
  }
}

const lastName = (module: string) => module.slice(module.lastIndexOf(".") + 1);

/** Modules of which inputs are multiplied. */
const feedforward = (modules: ReadonlyMap<string, { of: "inputs" | "outputs" }>) => [
  ...new Set([...modules].filter(([, { of }]) => of === "inputs").map(([module]) => lastName(module))),
];

/** What all modules say of a setting. @throws UsageError where they differ */
function same<Module, Value>(modules: ReadonlyMap<string, Module>, what: string, of: (module: Module) => Value): Value {
  const [first, ...others] = Array.from(modules, ([name, module]) => ({ name, value: of(module) }));
  const other = others.find(({ value }) => value !== first.value);
  if (other === undefined) return first.value;
  throw new UsageError(`${other.name} has ${what} ${other.value}, others ${first.value}`);
}

function configOf(adapter: Adapter): object {
  const common = {
    base_model_name_or_path: adapter.base ?? null,
    inference_mode: true,
    target_modules: [...new Set(Array.from(adapter.modules.keys(), lastName))],
    task_type: "CAUSAL_LM",
  };
  switch (adapter.kind) {
    case "ia3":
      return { peft_type: "IA3", ...common, feedforward_modules: feedforward(adapter.modules), fan_in_fan_out: false };
    case "lora":
      return {
        peft_type: "LORA",
        ...common,
        bias: "none",
        ...ranksOf(adapter.modules),
        lora_dropout: 0,
        fan_in_fan_out: false,
        use_dora: false,
        use_rslora: false,
      };
    case "molora":
      return { peft_type: "MOLORA", ...common, ...ranksOf(adapter.modules), ...routerOf(adapter.modules) };
    case "mov": {
      const { modules } = adapter;
      return { peft_type: "MOV", ...common, feedforward_modules: feedforward(modules), ...routerOf(modules) };
    }
  }
}

function ranksOf(modules: ReadonlyMap<string, { rank: number; scale: number }>) {
  const r = same(modules, "rank", ({ rank }) => rank);
  return { r, lora_alpha: r * same(modules, "scale", ({ scale }) => scale) };
}

const routerOf = (modules: ReadonlyMap<string, ExpertRouter>) => ({
  num_experts: same(modules, "experts", ({ experts }) => experts),
  top_k: same(modules, "topK", ({ topK }) => topK ?? null),
});

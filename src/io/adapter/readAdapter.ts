import * as z from "zod/mini";
import { FormatError } from "../../core/index.js";
import { checkSchema } from "../../core/internal.js";
import { toFloat32 } from "../../tensor/index.js";
import type { ModelFiles } from "../byteSource.js";
import { checkFinite } from "../checkFinite.js";
import { readJsonFile } from "../json.js";
import { readSafetensorsHeader } from "../safetensors.js";
import {
  type Adapter,
  adapterConfigName,
  adapterWeightsName,
  type LoraPair,
  modulePrefix,
  type Rescaling,
} from "./adapter.js";
import { endsWithName, hint, mostExperts, namesOf, partOf, type ReadTensor, type Tensors } from "./adapterTensors.js";
import { readPairMixtures, readRescalingMixtures } from "./readMixtures.js";

/** What changes how an adapter is computed, and is not done here: false, null and empty are what it must be. */
const unused = z.optional(z.union([z.literal(false), z.null(), z.array(z.never()), z.strictObject({})]));
const count = z.int().check(z.gte(1), z.lte(65_536));
const names = z.nullish(
  z.union([z.array(z.string().check(z.maxLength(4096))).check(z.maxLength(4096)), z.string().check(z.maxLength(4096))]),
);
const router = { num_experts: z.int().check(z.gte(1), z.lte(mostExperts)), top_k: z.nullish(count) };
const alpha = z.number().check(z.gt(0), z.lte(1e6));

const shared = {
  base_model_name_or_path: z.nullish(z.string().check(z.maxLength(4096))),
  modules_to_save: unused,
  layer_replication: unused,
  trainable_token_indices: unused,
  target_parameters: unused,
};
const schema = z.discriminatedUnion("peft_type", [
  z.looseObject({
    peft_type: z.literal("LORA"),
    r: z._default(count, 8),
    lora_alpha: z._default(alpha, 8),
    alpha_pattern: z.nullish(z.record(z.string().check(z.maxLength(4096)), alpha)),
    use_rslora: z.nullish(z.boolean()),
    bias: z._default(z.literal("none"), "none"),
    use_dora: unused,
    use_qalora: unused,
    use_bdlora: unused,
    lora_bias: unused,
    alora_invocation_tokens: unused,
    ...shared,
  }),
  z.looseObject({
    peft_type: z.literal("IA3"),
    feedforward_modules: names,
    ...shared,
  }),
  z.looseObject({ peft_type: z.literal("MOLORA"), r: count, lora_alpha: alpha, ...router, ...shared }),
  z.looseObject({ peft_type: z.literal("MOV"), feedforward_modules: names, ...router, ...shared }),
]);
type Config = z.output<typeof schema>;

const readers: {
  readonly [K in Config["peft_type"]]: (
    config: Config & { peft_type: K },
    tensors: Tensors,
    read: ReadTensor,
    file: string,
  ) => Promise<Adapter>;
} = {
  LORA: async (...given) => ({ kind: "lora", modules: await readPairs(...given) }),
  IA3: async (...given) => ({ kind: "ia3", modules: await readRescalings(...given) }),
  MOLORA: async (...given) => ({ kind: "molora", modules: await readPairMixtures(...given) }),
  MOV: async (...given) => ({ kind: "mov", modules: await readRescalingMixtures(...given) }),
};

/**
 * Reads an adapter directory: LoRA or IA³ of PEFT, or their mixtures that `writeAdapter` wrote.
 * @throws FormatError for files that are none, for variants that are not read, for tensors that do not make whole pairs
 */
export async function readAdapter(files: ModelFiles): Promise<Adapter> {
  const configFile = `${files.location}/${adapterConfigName}`;
  const raw = await readJsonFile(files, adapterConfigName);
  if (raw === undefined) {
    throw new FormatError({
      file: files.location,
      problem: `no ${adapterConfigName}`,
      expected: "a directory that PEFT or rarefy finetune --lora wrote",
    });
  }
  const config = checkSchema(schema, raw, configFile, hint);
  const source = await files.open(adapterWeightsName);
  const file = `${files.location}/${adapterWeightsName}`;
  if (source === undefined) throw new FormatError({ file: files.location, problem: `no ${adapterWeightsName}` });
  try {
    const { tensors } = await readSafetensorsHeader(source);
    const read = async (name: string) => {
      const { dtype, byteOffset, byteLength } = tensors.get(name)!;
      if (dtype !== "F32" && dtype !== "F16" && dtype !== "BF16") {
        throw new FormatError({ file, field: name, problem: `${dtype} values`, expected: "F32, BF16 or F16" });
      }
      const bytes = await source.read(byteOffset, byteLength);
      checkFinite(file, tensors.get(name)!, bytes);
      return toFloat32(dtype, bytes);
    };
    const base = config.base_model_name_or_path ?? undefined;
    const reader = readers[config.peft_type] as (...given: [Config, Tensors, ReadTensor, string]) => Promise<Adapter>;
    const found = await reader(config, tensors, read, file);
    if (found.modules.size === 0) throw new FormatError({ file, problem: "no tensors of an adapter", hint });
    return { ...found, ...(base !== undefined && { base }) };
  } finally {
    await source.close();
  }
}

async function readPairs(
  config: Config & { peft_type: "LORA" },
  tensors: Tensors,
  read: ReadTensor,
  file: string,
): Promise<Map<string, LoraPair>> {
  const [aPart, bPart] = [".lora_A.weight", ".lora_B.weight"];
  const pairs = new Map<string, LoraPair>();
  for (const [name, { shape }] of tensors) {
    const { module, part } = partOf(name, [aPart, bPart], file);
    const [aName, bName] = [aPart, bPart].map((part) => `${modulePrefix}${module}${part}`);
    const fail = (field: string, problem: string, expected: string) => {
      throw new FormatError({ file, field, problem, expected });
    };
    if (shape.length !== 2) fail(name, `shape [${shape.join(", ")}]`, "a matrix");
    const [a, b] = [tensors.get(aName), tensors.get(bName)];
    if (a === undefined || b === undefined) {
      fail(name, "one half of a pair", part === aPart ? bName : aName);
      continue;
    }
    if (part === bPart) continue;
    const [rank, cols] = a.shape;
    const [rows, inner] = b.shape;
    if (b.shape.length !== 2 || inner !== rank) fail(bName, `shape [${b.shape.join(", ")}]`, `[rows, ${rank}]`);
    const scale = alphaOf(config, module) / (config.use_rslora ? Math.sqrt(rank) : rank);
    pairs.set(module, { a: await read(aName), b: await read(bName), rank, rows, cols, scale });
  }
  return pairs;
}

/** Patterns are names, or ends of names; as regular expressions they would be code from a file. */
function alphaOf({ lora_alpha, alpha_pattern }: Config & { peft_type: "LORA" }, module: string): number {
  const own = Object.entries(alpha_pattern ?? {}).find(([pattern]) => endsWithName(module, pattern.replace(/^\^/, "")));
  return own?.[1] ?? lora_alpha;
}

async function readRescalings(
  { feedforward_modules }: Config & { peft_type: "IA3" },
  tensors: Tensors,
  read: ReadTensor,
  file: string,
): Promise<Map<string, Rescaling>> {
  const inputs = namesOf(feedforward_modules);
  const rescalings = new Map<string, Rescaling>();
  for (const name of tensors.keys()) {
    const { module } = partOf(name, [".ia3_l.weight", ".ia3_l"], file);
    const of = inputs.some((one) => endsWithName(module, one)) ? "inputs" : "outputs";
    rescalings.set(module, { factors: await read(name), of });
  }
  return rescalings;
}

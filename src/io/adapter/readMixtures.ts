import { FormatError } from "../../core/index.js";
import type { TensorInfo } from "../../tensor/index.js";
import { modulePrefix, type PairMixture, type RescalingMixture } from "./adapter.js";
import { endsWithName, namesOf, partOf, type ReadTensor, type Tensors } from "./adapterTensors.js";

/** What a config says of the router of every module. */
interface RouterConfig {
  num_experts: number;
  top_k?: number | null;
}

/** Last parts of the names of what belongs to a module. */
const [aPart, bPart, factorPart, routerPart] = [
  ".molora_A.weight",
  ".molora_B.weight",
  ".mov_l.weight",
  ".router.weight",
];

/** MoLoRA: [experts, rank, cols], [experts, rows, rank] and [experts, cols] for every module. @throws FormatError */
export async function readPairMixtures(
  { r: rank, lora_alpha, num_experts: experts, top_k }: RouterConfig & { r: number; lora_alpha: number },
  tensors: Tensors,
  read: ReadTensor,
  file: string,
): Promise<Map<string, PairMixture>> {
  const found = new Map<string, PairMixture>();
  for (const module of modulesIn(tensors, [aPart, bPart, routerPart], file)) {
    const [a, b, router] = [aPart, bPart, routerPart].map((part) => tensors.get(nameOf(module, part))!);
    const cols = lengthOf(a, [experts, rank, "cols"], file);
    const rows = lengthOf(b, [experts, "rows", rank], file);
    lengthOf(router, [experts, cols], file);
    found.set(module, {
      a: await read(a.name),
      b: await read(b.name),
      router: await read(router.name),
      experts,
      rank,
      rows,
      cols,
      scale: lora_alpha / rank,
      ...topOf(top_k, experts, file),
    });
  }
  return found;
}

/** MoV: [experts, factors] and [experts, width] for every module. @throws FormatError */
export async function readRescalingMixtures(
  {
    num_experts: experts,
    top_k,
    feedforward_modules,
  }: RouterConfig & { feedforward_modules?: string | readonly string[] | null },
  tensors: Tensors,
  read: ReadTensor,
  file: string,
): Promise<Map<string, RescalingMixture>> {
  const inputs = namesOf(feedforward_modules);
  const found = new Map<string, RescalingMixture>();
  for (const module of modulesIn(tensors, [factorPart, routerPart], file)) {
    const [factors, router] = [factorPart, routerPart].map((part) => tensors.get(nameOf(module, part))!);
    const length = lengthOf(factors, [experts, "factors"], file);
    const width = lengthOf(router, [experts, "width"], file);
    if (length % width !== 0) {
      const problem = `a router of ${width} columns for ${length} factors`;
      throw new FormatError({ file, field: router.name, problem, expected: "a width that divides them" });
    }
    found.set(module, {
      factors: await read(factors.name),
      router: await read(router.name),
      experts,
      of: inputs.some((one) => endsWithName(module, one)) ? "inputs" : "outputs",
      width,
      ...topOf(top_k, experts, file),
    });
  }
  return found;
}

const nameOf = (module: string, part: string) => modulePrefix + module + part;

/** Modules of which all parts are there. @throws FormatError where one is missing, or a tensor is of another kind */
function modulesIn(tensors: Tensors, parts: readonly string[], file: string): ReadonlySet<string> {
  const modules = new Set(Array.from(tensors.keys(), (name) => partOf(name, parts, file).module));
  for (const module of modules) {
    const missing = parts.map((part) => nameOf(module, part)).find((name) => !tensors.has(name));
    if (missing !== undefined) {
      throw new FormatError({
        file,
        field: missing,
        problem: "missing",
        expected: `a tensor beside others of ${module}`,
      });
    }
  }
  return modules;
}

/** The length of the axis that has a name, or of the last. @throws FormatError for a tensor of another shape */
function lengthOf({ name, shape }: TensorInfo, wanted: readonly (number | string)[], file: string): number {
  const fits =
    shape.length === wanted.length && wanted.every((n, i) => (typeof n === "string" ? shape[i] > 0 : shape[i] === n));
  if (!fits) {
    const problem = `shape [${shape.join(", ")}]`;
    throw new FormatError({ file, field: name, problem, expected: `[${wanted.join(", ")}]` });
  }
  const named = wanted.findIndex((n) => typeof n === "string");
  return shape[named < 0 ? shape.length - 1 : named];
}

function topOf(topK: number | null | undefined, experts: number, file: string): { topK?: number } {
  if (topK === null || topK === undefined) return {};
  if (topK > experts) {
    const problem = `top_k ${topK} of ${experts} experts`;
    throw new FormatError({ file, field: "top_k", problem, expected: "at most as many" });
  }
  return { topK };
}

import { FormatError } from "../core/index.js";
import {
  type FileSinks,
  isJsonObject,
  type ModelFiles,
  readJsonFile,
  readSafetensorsHeader,
  type TensorToWrite,
  writeSafetensors,
} from "../io/index.js";
import { createFile } from "../io/internal.js";
import type { DType } from "../tensor/index.js";
import { isStateArray, type State, type StateArray } from "./state.js";

/** Version of the layout: `state.json`, a tree with `{ "tensor": path }` for arrays, and the arrays as safetensors. */
const version = 1;
const treeFile = "state.json";
const arraysFile = "model.safetensors";
/** Trees in trees; those of training are 4 deep. */
const maxDepth = 32;

const dtypes: readonly (readonly [DType, new (buffer: ArrayBuffer) => StateArray])[] = [
  ["F32", Float32Array],
  ["F64", Float64Array],
  ["I32", Int32Array],
  ["U8", Uint8Array],
];

/** Writes a state as two files; the tree, without which there is no state, comes last. */
export async function writeState(sinks: FileSinks, state: State): Promise<void> {
  const tensors: TensorToWrite[] = [];
  const describe = (value: State[string], path: string): unknown => {
    if (isStateArray(value)) {
      const dtype = dtypes.find(([, type]) => value instanceof type)![0];
      const bytes = new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
      tensors.push({ name: path, dtype, shape: [value.length], bytes: () => [bytes] });
      return { tensor: path };
    }
    // Numbers that JSON cannot hold would come back as null.
    if (typeof value === "number" && !Number.isFinite(value)) return { number: String(value) };
    if (typeof value !== "object") return value;
    return { entries: Object.fromEntries(Object.entries(value).map(([k, v]) => [k, describe(v, `${path}/${k}`)])) };
  };
  const tree = { rarefyState: version, state: describe(state, "state") };
  await writeSafetensors(sinks, tensors);
  const bytes = new TextEncoder().encode(`${JSON.stringify(tree)}\n`);
  await createFile(sinks, treeFile, (sink) => sink.write(bytes));
}

/** @returns undefined when there is no state. @throws FormatError */
export async function readState(files: ModelFiles): Promise<State | undefined> {
  const tree = await readJsonFile(files, treeFile);
  if (tree === undefined) return undefined;
  const file = `${files.location}/${treeFile}`;
  if (!isJsonObject(tree) || tree.rarefyState !== version) {
    throw new FormatError({ file, field: "rarefyState", problem: "another version", expected: String(version) });
  }
  const source = await files.open(arraysFile);
  if (source === undefined) throw new FormatError({ file: `${files.location}/${arraysFile}`, problem: "is missing" });
  try {
    const { tensors } = await readSafetensorsHeader(source);
    const build = async (value: unknown, path: string, depth = 0): Promise<State[string]> => {
      if (typeof value === "number" || typeof value === "string" || typeof value === "boolean") return value;
      if (isJsonObject(value) && typeof value.number === "string") return Number(value.number);
      if (isJsonObject(value) && typeof value.tensor === "string") {
        const stored = tensors.get(value.tensor);
        const type = dtypes.find(([dtype]) => dtype === stored?.dtype)?.[1];
        if (stored === undefined || type === undefined) {
          throw new FormatError({ file: source.name, field: value.tensor, problem: "no such array of numbers" });
        }
        const bytes = await source.read(stored.byteOffset, stored.byteLength);
        return new type(bytes.slice().buffer as ArrayBuffer);
      }
      if (!isJsonObject(value) || !isJsonObject(value.entries)) {
        throw new FormatError({ file, field: path, problem: "neither a value, an array nor a tree" });
      }
      if (depth === maxDepth) throw new FormatError({ file, field: path, problem: `more than ${maxDepth} trees deep` });
      const state: State = {};
      for (const [key, entry] of Object.entries(value.entries)) {
        state[key] = await build(entry, `${path}.${key}`, depth + 1);
      }
      return state;
    };
    return (await build(tree.state, "state")) as State;
  } finally {
    await source.close();
  }
}

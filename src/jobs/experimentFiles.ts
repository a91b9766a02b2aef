import { createHash } from "node:crypto";
import { createReadStream, existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import * as z from "zod/mini";
import { type JobOptions, UsageError } from "../core/index.js";
import { checkSchema } from "../core/internal.js";
import { type LocalModelFiles, parseJson, sha256Hex } from "../io/index.js";
import { resolveModel, writeFileAtomic } from "../io/index.node.js";
import type { Cell, CellInputs, CellStore, EngineDevice } from "../train/index.js";
import { readTrainingText } from "../train/index.node.js";
import { StateDirectory } from "./stateDirectory.js";

/** Where the cells of an experiment find what they read, as plain values that can be handed to another thread. */
export interface ExperimentPlaces {
  /** Directory of the text files. */
  texts: string;
  /** MODEL as the command line takes it. */
  model: string;
  device: EngineDevice;
}

export const cellInputs = ({ texts, model, device }: ExperimentPlaces, options: JobOptions): CellInputs => ({
  device,
  async readText(name) {
    if (existsSync(join(texts, name))) return readTrainingText(join(texts, name), options.signal);
    throw new UsageError(
      `the experiment reads ${name}, which is not in ${texts}; name the directory of its texts with \`texts\``,
    );
  },
  openModel: () => resolveModel(model, options),
});

/** A name and a hash of the weights: no result of another model is taken for one of this. */
export async function modelIdentity(files: LocalModelFiles): Promise<string> {
  const hashes: string[] = [];
  for (const name of (await files.names()).filter((name) => /\.(safetensors|gguf)$/.test(name)).sort()) {
    const path = files.pathOf(name);
    if (path !== undefined) hashes.push(await hashOfFile(path));
  }
  const all = await sha256Hex(new TextEncoder().encode(hashes.join()));
  return `${basename(files.location)} ${all.slice(0, 16)}`;
}

const finishedCell = z.looseObject({
  cell: z.unknown(),
  result: z.record(z.string(), z.unknown()),
  device: z.enum(["cpu", "wasm", "webgpu"]),
});

/** Piece by piece: files of weights can be larger than what Node reads at once. */
async function hashOfFile(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const piece of createReadStream(path)) hash.update(piece as Buffer);
  return hash.digest("hex");
}

/** One JSON file per finished cell, and a directory beside it while a long one is not finished. */
export function cellFiles(directory: string): CellStore {
  const pathOf = (cell: Cell) => join(directory, `${cell.key}.json`);
  const statesOf = (cell: Cell) => new StateDirectory(join(directory, `${cell.key}.run`));
  /** As it comes back from a file. */
  const plain = (cell: Cell): unknown => JSON.parse(JSON.stringify(cell));
  return {
    async load(cell) {
      let bytes: Uint8Array;
      try {
        bytes = await readFile(pathOf(cell));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
        throw error;
      }
      const raw = parseJson(bytes, pathOf(cell));
      const hint = "Remove the file, and the same command runs the cell again";
      const { cell: stored, result, device } = checkSchema(finishedCell, raw, pathOf(cell), hint);
      return isDeepStrictEqual(stored, plain(cell)) ? { result, device } : undefined;
    },
    async save({ key, seed, settings }, outcome) {
      const cell = { key, seed, settings };
      await writeFileAtomic(pathOf(cell), new TextEncoder().encode(JSON.stringify({ cell, ...outcome })));
      await statesOf(cell).remove();
    },
    stateOf: (cell) => {
      const states = statesOf(cell);
      return {
        async load() {
          const state = await states.load();
          return isDeepStrictEqual(state?.cell, JSON.stringify(cell)) ? (state?.run as typeof state) : undefined;
        },
        save: (step, run) => states.save(step, { cell: JSON.stringify(cell), run }),
      };
    },
  };
}

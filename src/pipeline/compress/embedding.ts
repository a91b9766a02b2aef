import * as z from "zod/mini";
import type { TensorRef } from "../../arch/index.js";
import { type RecipeStage, type ResolvedStage, tensorMethods } from "../../compress/index.js";
import { NonFiniteError } from "../../core/index.js";
import { checkSchema } from "../../core/internal.js";
import { type Checkpoint, type FloatDType, readJsonFile } from "../../io/index.js";
import { compressedMatrix, encodeFactors, tensorDeclaration } from "../../io/internal.js";
import { firstNonFiniteOf } from "../../model/index.js";
import { factorParameters, fromFloat32, type Tensor, toFloat32 } from "../../tensor/index.js";
import { factorRows } from "../../tensor/internal.js";
import { floatDType } from "./block.js";
import { embeddingFileName, type Workspace } from "./workspace.js";

const embeddingRecord = z.strictObject({
  tensors: z.record(z.string(), tensorDeclaration),
  matrix: compressedMatrix,
});
export type EmbeddingRecord = z.output<typeof embeddingRecord>;

/** The table as the factors that a stage asks for. @param dtype of their numbers; default: the table's own */
export async function embeddingFactors(
  checkpoint: Checkpoint,
  table: TensorRef,
  { stage, options }: ResolvedStage,
  dtype: FloatDType = floatDType(checkpoint, table.tensor),
): Promise<{ tensors: Tensor[]; record: EmbeddingRecord }> {
  if (stage.type !== "embedding") throw new TypeError(`a stage of type ${stage.type}`);
  const [rows, cols] = table.shape;
  const method = tensorMethods[stage.method];
  const shape = { rows, cols, pieces: await tokenPieces(checkpoint, [stage], rows) };
  const weight = await checkpoint.readFloat32(table.tensor);
  const planned = method.plan(shape, options, stage);
  const { factors, parts } = method.fit(weight, shape, planned, stage.tolerance, options);
  const stored = Object.fromEntries(
    Object.entries(parts).map(([name, values]) => [
      name,
      values instanceof Uint32Array ? values : toFloat32(dtype, fromFloat32(dtype, values)),
    ]),
  );
  for (const [name, values] of Object.entries(stored)) {
    const bad = values instanceof Uint32Array ? -1 : firstNonFiniteOf(values);
    if (bad < 0) continue;
    throw new NonFiniteError(`${table.tensor}: ${method.id} made entry ${bad} of ${name} ${values[bad]} as ${dtype}`);
  }
  const write = factorRows(factors, shape, stored);
  const row = new Float64Array(cols);
  let [lost, all] = [0, 0];
  for (let r = 0; r < rows; r++) {
    write(r, row);
    for (let c = 0; c < cols; c++) {
      const value = weight[r * cols + c];
      lost += (row[c] - value) ** 2;
      all += value * value;
    }
  }
  const { tensors, declaration } = encodeFactors(table.tensor, [rows, cols], { factors, parts: stored }, dtype);
  return {
    tensors,
    record: {
      tensors: { [table.tensor]: declaration },
      matrix: {
        rows,
        cols,
        sparsity: 0,
        nonZeros: factorParameters(factors, shape),
        relativeError: Math.sqrt(lost / Math.max(all, Number.MIN_VALUE)),
        factors: factors.kind,
      },
    },
  };
}

/**
 * Texts of the tokens of a table by id, where a stage reads them; else undefined.
 * @throws FormatError for a tokenizer that is missing or cannot be read
 */
export async function tokenPieces(
  { files }: Pick<Checkpoint, "files">,
  stages: readonly RecipeStage[],
  rows: number,
): Promise<(string | undefined)[] | undefined> {
  const reads = stages.some((stage) => stage.type === "embedding" && tensorMethods[stage.method]?.readsTokens);
  if (!reads) return undefined;
  const { loadTokenizer } = await import("../../text/index.js");
  const tokenizer = await loadTokenizer(files);
  return Array.from({ length: rows }, (_, id) => tokenizer.tokenOf(id));
}

/** @returns undefined where the embedding is as it was. @throws FormatError */
export async function readEmbeddingRecord({ files }: Workspace): Promise<EmbeddingRecord | undefined> {
  const found = await readJsonFile(files, embeddingFileName);
  return found === undefined
    ? undefined
    : checkSchema(embeddingRecord, found, `${files.location}/${embeddingFileName}`);
}

import * as z from "zod/mini";
import type { UnitGradients, UnitType } from "../../../compress/internal.js";
import { FormatError } from "../../../core/index.js";
import { checkSchema } from "../../../core/internal.js";
import { type Checkpoint, readJsonFile, readSafetensorsHeader } from "../../../io/index.js";
import { fromFloat32, type Tensor, toFloat32 } from "../../../tensor/index.js";
import type { BlockUnitGradients } from "../../gradients.js";
import type { CompressionPlan, CompressOptions } from "../planned.js";
import {
  beginAnew,
  hashOfFile,
  unitGradientsHashName,
  unitGradientsName,
  type Workspace,
  writeJson,
  writeShard,
} from "../workspace.js";

const hashSchema = z.strictObject({ sha256: z.string() });

const kinds: readonly UnitType[] = ["heads", "neurons"];

/**
 * The gradients of all units of the source by their factors, computed once and kept in the workspace: f32 [batches, units] of
 * every block and kind.
 * @throws FormatError when the file is none of this job
 */
export async function unitGradientsOf(
  workspace: Workspace,
  checkpoint: Checkpoint,
  { description, windows }: CompressionPlan,
  together: number,
  { gradients, signal, onProgress }: CompressOptions,
): Promise<ReadonlyMap<number, BlockUnitGradients>> {
  const { spec } = description.config;
  const found = await readGradients(workspace, spec.blocks.length);
  if (found !== undefined) return found;
  const blocks = new Map<number, BlockUnitGradients>();
  for await (const block of gradients!.unitGradients(checkpoint, spec, windows!, together, { signal, onProgress }))
    blocks.set(block.layer, block);
  const tensors = [...blocks.values()].flatMap((block) =>
    kinds.map((kind): Tensor => {
      const { values, batches, units } = block[kind];
      return {
        name: `${kind}.${block.layer}`,
        shape: [batches, units],
        dtype: "F32",
        bytes: fromFloat32("F32", Float32Array.from(values)),
      };
    }),
  );
  await writeShard(workspace, unitGradientsName, tensors);
  await writeJson(workspace, unitGradientsHashName, { sha256: await hashOfFile(workspace, unitGradientsName) });
  // Another run of the job finds what is in the file, and so does this one.
  return (await readGradients(workspace, spec.blocks.length))!;
}

async function readGradients(
  workspace: Workspace,
  layers: number,
): Promise<Map<number, BlockUnitGradients> | undefined> {
  const { files } = workspace;
  const stored = await readJsonFile(files, unitGradientsHashName);
  if (stored === undefined) return undefined;
  const { sha256 } = checkSchema(hashSchema, stored, `${files.location}/${unitGradientsHashName}`, beginAnew);
  const file = `${files.location}/${unitGradientsName}`;
  if ((await hashOfFile(workspace, unitGradientsName)) !== sha256)
    throw new FormatError({ file, problem: "not the bytes that the job wrote", hint: beginAnew });
  const source = (await files.open(unitGradientsName))!;
  try {
    const { tensors } = await readSafetensorsHeader(source);
    const read = async (kind: UnitType, layer: number): Promise<UnitGradients> => {
      const field = `${kind}.${layer}`;
      const found = tensors.get(field);
      if (found?.dtype !== "F32" || found.shape.length !== 2)
        throw new FormatError({ file, field, problem: "no f32 matrix of this name", hint: beginAnew });
      const { shape, byteOffset, byteLength } = found;
      const values = Float64Array.from(toFloat32("F32", await source.read(byteOffset, byteLength)));
      return { values, batches: shape[0], units: shape[1] };
    };
    const blocks = new Map<number, BlockUnitGradients>();
    for (let layer = 0; layer < layers; layer++)
      blocks.set(layer, { layer, heads: await read("heads", layer), neurons: await read("neurons", layer) });
    return blocks;
  } finally {
    await source.close();
  }
}

/** Once nothing more is chosen by them. */
export async function removeUnitGradients(workspace: Workspace): Promise<void> {
  await workspace.remove(unitGradientsHashName);
  await workspace.remove(unitGradientsName);
}

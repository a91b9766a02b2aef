import * as z from "zod/mini";
import { type GradientStatistic, gradientStatistics } from "../../compress/index.js";
import { FormatError } from "../../core/index.js";
import { checkSchema } from "../../core/internal.js";
import { type Checkpoint, readJsonFile, readSafetensorsHeader } from "../../io/index.js";
import { fromFloat32, toFloat32 } from "../../tensor/index.js";
import type { BlockGradients } from "../gradients.js";
import type { CompressionPlan, CompressOptions } from "./planned.js";
import {
  beginAnew,
  gradientListName,
  gradientsName,
  hashOfFile,
  type Workspace,
  writeJson,
  writeShard,
} from "./workspace.js";

const listSchema = z.strictObject({ sha256: z.array(z.string()).check(z.maxLength(4096)) });

/**
 * Gradients of a model on their way from the pass that computes them, from the last block to the first, to the blocks
 * that are compressed, from the first to the last: files of the workspace, so that memory holds those of one block. A job that
 * goes on finds them there.
 */
export class GradientFiles {
  #sha256: readonly string[] = [];

  constructor(
    readonly workspace: Workspace,
    readonly plan: CompressionPlan,
  ) {}

  /** Computes what is not there yet. */
  async collect(checkpoint: Checkpoint, { gradients, signal, onProgress }: CompressOptions): Promise<void> {
    const { workspace, plan } = this;
    const { spec } = plan.description.config;
    const file = `${workspace.files.location}/${gradientListName}`;
    const found = await readJsonFile(workspace.files, gradientListName);
    if (found !== undefined) {
      this.#sha256 = checkSchema(listSchema, found, file, beginAnew).sha256;
      if (this.#sha256.length === spec.blocks.length) return;
      throw new FormatError({ file, field: "sha256", problem: "not one for every block", hint: beginAnew });
    }
    const sha256 = new Array<string>(spec.blocks.length);
    const wanted = gradientStatistics.filter((id) => plan.stages.some((stage) => stage.gradients.includes(id)));
    const steering = { signal, onProgress };
    for await (const block of gradients!.blockGradients(checkpoint, spec, plan.windows!, wanted, steering)) {
      await this.#write(block);
      sha256[block.layer] = (await hashOfFile(workspace, gradientsName(block.layer)))!;
    }
    await writeJson(workspace, gradientListName, { sha256 });
    this.#sha256 = sha256;
  }

  /** f32 [rows, cols] by id of the map. @throws FormatError when the file is no longer what the job wrote */
  async read(layer: number): Promise<BlockGradients["values"]> {
    const { files } = this.workspace;
    const name = gradientsName(layer);
    if ((await hashOfFile(this.workspace, name)) !== this.#sha256[layer]) {
      const file = `${files.location}/${name}`;
      throw new FormatError({ file, problem: "not the bytes that the job wrote", hint: beginAnew });
    }
    const source = (await files.open(name))!;
    try {
      const { tensors } = await readSafetensorsHeader(source);
      const values: Partial<Record<GradientStatistic, Map<string, Float32Array>>> = {};
      for (const [name, { dtype, byteOffset, byteLength }] of tensors) {
        const statistic = gradientStatistics.find((id) => name.startsWith(`${id}.`))!;
        values[statistic] ??= new Map();
        values[statistic].set(
          name.slice(statistic.length + 1),
          toFloat32(dtype, await source.read(byteOffset, byteLength)),
        );
      }
      return values;
    } finally {
      await source.close();
    }
  }

  /** Those of a block that is finished. */
  remove(layer: number): Promise<void> {
    return this.workspace.remove(gradientsName(layer));
  }

  async removeAll(): Promise<void> {
    for (const layer of this.plan.description.config.spec.blocks.keys()) await this.remove(layer);
    await this.workspace.remove(gradientListName);
  }

  async #write({ layer, values }: BlockGradients): Promise<void> {
    const tensors = Object.entries(values).flatMap(([statistic, maps]) =>
      Array.from(maps, ([id, values]) => ({
        name: `${statistic}.${id}`,
        shape: [values.length],
        dtype: "F32" as const,
        bytes: fromFloat32("F32", values),
      })),
    );
    await writeShard(this.workspace, gradientsName(layer), tensors);
  }
}

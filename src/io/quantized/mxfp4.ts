import { e8M0Values } from "../../tensor/index.js";
import type { EncodedTensor } from "../encoding/index.js";
import { unitRows } from "../unitRows.js";
import { doubledFp4 } from "./fp4.js";
import type { MatrixParts } from "./matrixParts.js";
import { type SourceFormat, stemBefore } from "./sourceFormat.js";

const blockSize = 32;

/**
 * MXFP4 as gpt-oss stores its experts (arXiv 2508.10925; OCP Microscaling Formats 1.0). Of a stack [experts, in, out]: `_blocks` U8
 * [experts, out, in / 32, 16] with two values of FP4 in a byte, and `_scales` U8 [experts, out, in / 32], powers of two.
 */
export const mxfp4: SourceFormat = {
  title: "MXFP4",
  reader: () => ({
    details: "groups of 32",
    stemOf: (name) => stemBefore(name, "_blocks"),
    open: async (parts) => openStack(parts),
  }),
};

function openStack(parts: MatrixParts): EncodedTensor {
  const blocks = parts.part("_blocks", ["U8"], 4);
  const [experts, outputs, groups] = blocks.shape;
  parts.checkShape("_blocks", blocks, [experts, outputs, groups, blockSize / 2]);
  parts.checkShape("_scales", parts.part("_scales", ["U8"], 3), [experts, outputs, groups]);
  const inputs = groups * blockSize;

  /** f32 [in, out] of one expert. */
  async function readExpert(expert: number): Promise<Float32Array> {
    const scales = await parts.read("_scales", expert * outputs * groups, outputs * groups);
    const values = doubledFp4(await parts.read("_blocks", (expert * outputs * inputs) / 2, (outputs * inputs) / 2));
    const out = new Float32Array(inputs * outputs);
    for (let o = 0, at = 0; o < outputs; o++) {
      for (let g = 0; g < groups; g++) {
        const scale = e8M0Values[scales[o * groups + g]] / 2;
        for (let i = g * blockSize; i < (g + 1) * blockSize; i++, at++) out[i * outputs + o] = scale * values[at];
      }
    }
    return out;
  }
  const rows = unitRows(inputs, outputs, readExpert);
  return {
    info: {
      name: parts.stem,
      dtype: "F32",
      shape: [experts, inputs, outputs],
      encoding: "MXFP4",
      storedBytes: parts.storedBytes,
    },
    readRows: async (start, count) => new Uint8Array((await rows(start, count)).buffer),
  };
}

import type { ModelFiles } from "../byteSource.js";
import { isJsonObject, readJsonFile } from "../json.js";
import type { QuantizationRecord } from "./sourceFormat.js";

/** Files in which tools left the record before they wrote it into config.json, and what it says there. */
const records: Readonly<Record<string, (fields: QuantizationRecord) => QuantizationRecord>> = {
  // AutoGPTQ
  "quantize_config.json": (fields) => ({ quant_method: "gptq", ...fields }),
  // AutoAWQ
  "quant_config.json": ({ w_bit, q_group_size, zero_point, version }) => ({
    quant_method: "awq",
    bits: w_bit,
    group_size: q_group_size,
    zero_point,
    version,
  }),
};

export const recordFileNames: readonly string[] = Object.keys(records);

/** The record of a model whose config.json has none; undefined where no file has one. @throws FormatError */
export async function readRecordFile(
  files: ModelFiles,
): Promise<{ record: QuantizationRecord; file: string } | undefined> {
  for (const name of recordFileNames) {
    const fields = await readJsonFile(files, name);
    if (isJsonObject(fields)) return { record: records[name](fields), file: `${files.location}/${name}` };
  }
  return undefined;
}

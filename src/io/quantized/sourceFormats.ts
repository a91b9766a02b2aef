import { awq } from "./awq.js";
import { bitsandbytes } from "./bitsandbytes.js";
import { compressedTensors } from "./compressedTensors.js";
import { fp8 } from "./fp8.js";
import { gptq } from "./gptq.js";
import { mxfp4 } from "./mxfp4.js";
import type { SourceFormat } from "./sourceFormat.js";

/** `quant_method` of config.json → how its weights are read. */
export const sourceFormats: Readonly<Record<string, SourceFormat>> = {
  gptq,
  awq,
  "compressed-tensors": compressedTensors,
  fp8,
  fbgemm_fp8: fp8,
  mxfp4,
  bitsandbytes,
};

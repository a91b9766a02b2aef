// Writes the same weights as GGUF, so that llama.cpp computes with what rarefy computes with.
//
//   node gguf-twin.mjs MODEL_DIRECTORY [--types Q8_0,Q4_0,F16]
//
// With `rarefy export` of the built package: every matrix gets the named type (llama.cpp's --pure), norms are F32, and each
// file is read back and compared.

import { execFileSync } from "node:child_process";
import { basename, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { readOptions } from "../scripts/options.mjs";

const { values, positionals } = readOptions({
  allowPositionals: true,
  options: { types: { type: "string", default: "Q8_0,Q4_0,F16" } },
});
if (positionals.length !== 1) throw new Error("usage: node gguf-twin.mjs MODEL_DIRECTORY [--types Q8_0,Q4_0,F16]");
const directory = resolve(positionals[0]);
const rarefy = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));
for (const type of values.types.split(",")) {
  const output = join(directory, `${basename(directory)}-${type}.gguf`);
  const args = ["export", directory, "--format", "gguf", "--type", type.toLowerCase(), "-o", output];
  execFileSync(process.execPath, [rarefy, ...args], { stdio: "inherit" });
}

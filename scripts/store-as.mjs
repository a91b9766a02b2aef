// Stores a plain checkpoint as another tool would have quantised it, on the built package, to measure what reading it costs:
//   npm run build && node scripts/store-as.mjs MODEL OUTPUT "gptq 4 bits"
// Without a format it lists those there are. Codes are rounded to the nearest; no method tunes them.
import { cp, mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { openCheckpoint } from "../dist/io/index.js";
import { directoryFiles, directorySinks } from "../dist/io/index.node.js";
import { writeSafetensors } from "../dist/io/safetensorsWriter.js";
import { stores } from "../test/support/storeAs.mjs";
import { readOptions } from "./options.mjs";

const [model, output, format] = readOptions({ allowPositionals: true }).positionals;
if (stores[format] === undefined) {
  process.stderr.write(`usage: node scripts/store-as.mjs MODEL OUTPUT FORMAT\n${Object.keys(stores).join("\n")}\n`);
  process.exit(1);
}
const { record, parts } = stores[format];
const checkpoint = await openCheckpoint(directoryFiles(model));
const tensors = [];
for (const { name, dtype, shape } of checkpoint.tensors.values()) {
  if (/_proj\.weight$/.test(name))
    tensors.push(...parts(name, { shape, values: await checkpoint.readFloat32(name) }).raw);
  else tensors.push({ name, dtype, shape, bytes: await checkpoint.read(name) });
}
await mkdir(output, { recursive: true });
await writeSafetensors(
  directorySinks(output),
  tensors.map(({ bytes, ...info }) => ({ ...info, bytes: () => [bytes] })),
);
for (const name of await readdir(model)) {
  if (!/\.safetensors|^config\.json$/.test(name)) await cp(join(model, name), join(output, name));
}
await writeFile(join(output, "config.json"), JSON.stringify({ ...checkpoint.config, quantization_config: record }));

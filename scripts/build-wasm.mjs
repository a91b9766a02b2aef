// Writes the readers of program records for the kernels, compiles the AssemblyScript kernels to WebAssembly, twice, and
// embeds both as base64 in a module, so that they need neither a fetch nor a bundler's help. Does nothing when the sources
// have not changed.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import asc from "assemblyscript/asc";
import { assemblyScript, cHeader, evaluate } from "./generate-records.mjs";
import { readOptions } from "./options.mjs";

readOptions();
const folder = fileURLToPath(new URL("../src/kernels/wasm/", import.meta.url));
/** What begins each module, and where it goes: a page loads the kernels that train only to train. */
const modules = {
  [`${folder}generated/kernels.ts`]: "index.ts",
  [`${folder}generated/trainingKernels.ts`]: "training/index.ts",
};
const accessors = `${folder}assembly/generated/records.ts`;
const header = fileURLToPath(new URL("../src/kernels/program/generated/records.h", import.meta.url));
const script = (name) => fileURLToPath(new URL(name, import.meta.url));
const recordsSource = fileURLToPath(new URL("../src/kernels/program/records.ts", import.meta.url));
const sources = [
  "../program/layout.ts",
  "../cpu/codes.ts",
  ...readdirSync(`${folder}assembly`, { recursive: true })
    .filter((f) => f.endsWith(".ts") && !f.startsWith("generated"))
    .map((f) => `assembly/${f}`),
];

const hash = createHash("sha256");
const made = [recordsSource, script("build-wasm.mjs"), script("generate-records.mjs")];
for (const name of [...sources.map((s) => folder + s), ...made]) hash.update(readFileSync(name));
const stamp = `// sources ${hash.digest("hex")}`;

const flags = [
  "-O3",
  "--enable",
  "simd",
  "--enable",
  "threads",
  "--sharedMemory",
  "--importMemory",
  "--maximumMemory",
  "65536",
  "--runtime",
  "stub",
  "--noAssert",
  // Helpers exported between the files, never to JavaScript, take vectors.
  "--disableWarning",
  "112",
];

async function compile(entry, extra) {
  const out = `${folder}generated/kernels.wasm`;
  const { error, stderr } = await asc.main([`${folder}assembly/${entry}`, "-o", out, ...flags, ...extra]);
  if (error) throw new Error(`AssemblyScript: ${error.message}\n${stderr.toString()}`);
  if (stderr.toString().trim() !== "") process.stderr.write(stderr.toString());
  const bytes = readFileSync(out);
  rmSync(out);
  return bytes.toString("base64");
}

const upToDate = () => {
  try {
    const isMade = (target) => readFileSync(target, "utf8").startsWith(stamp);
    return existsSync(header) && existsSync(accessors) && Object.keys(modules).every(isMade);
  } catch {
    return false;
  }
};

/** Writes down how the kernels read records: AssemblyScript classes, and a C header for native ones. */
async function writeRecords() {
  const table = await evaluate(recordsSource);
  const write = (path, text) => {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
  };
  write(accessors, assemblyScript(table));
  write(header, cHeader(table, await evaluate(`${folder}../program/layout.ts`)));
}

if (!upToDate()) {
  await writeRecords();
  mkdirSync(`${folder}generated`, { recursive: true });
  for (const [target, entry] of Object.entries(modules)) {
    const baseline = await compile(entry, []);
    const relaxed = await compile(entry, ["--enable", "relaxed-simd"]);
    writeFileSync(
      target,
      `${stamp}\n/** Base64 of the WebAssembly modules. */\nexport const baseline: string =\n  "${baseline}";\nexport const relaxed: string =\n  "${relaxed}";\n`,
    );
  }
}

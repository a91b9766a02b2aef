// Compiles the AssemblyScript kernels to WebAssembly, twice, and embeds both as base64 in a module, so that they need
// neither a fetch nor a bundler's help. Does nothing when the sources have not changed.
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import asc from "assemblyscript/asc";

const folder = fileURLToPath(new URL("../src/kernels/wasm/", import.meta.url));
const target = `${folder}generated/kernels.ts`;
const sources = [
  "layout.ts",
  ...readdirSync(`${folder}assembly`)
    .filter((f) => f.endsWith(".ts"))
    .map((f) => `assembly/${f}`),
];

const hash = createHash("sha256");
for (const name of [...sources.map((s) => folder + s), fileURLToPath(import.meta.url)]) hash.update(readFileSync(name));
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

async function compile(extra) {
  const out = `${folder}generated/kernels.wasm`;
  const { error, stderr } = await asc.main([`${folder}assembly/index.ts`, "-o", out, ...flags, ...extra]);
  if (error) throw new Error(`AssemblyScript: ${error.message}\n${stderr.toString()}`);
  if (stderr.toString().trim() !== "") process.stderr.write(stderr.toString());
  const bytes = readFileSync(out);
  rmSync(out);
  return bytes.toString("base64");
}

const upToDate = () => {
  try {
    return readFileSync(target, "utf8").startsWith(stamp);
  } catch {
    return false;
  }
};

if (!upToDate()) {
  mkdirSync(`${folder}generated`, { recursive: true });
  const baseline = await compile([]);
  const relaxed = await compile(["--enable", "relaxed-simd"]);
  writeFileSync(
    target,
    `${stamp}\n/** Base64 of the WebAssembly modules. */\nexport const baseline =\n  "${baseline}";\nexport const relaxed =\n  "${relaxed}";\n`,
  );
}

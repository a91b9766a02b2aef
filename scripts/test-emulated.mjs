// Runs test files in the Node.js of another platform, where vitest's own tools do not run: bundles them here, and runs the bundles there with
// the file of prebuilds/ for that platform.
//   node scripts/test-emulated.mjs [--files src/kernels/wasm/native.test.ts,…] [--name REGEXP] -- qemu-aarch64-static -L ROOT NODE
// What follows -- is the command that runs a script in that Node.js. docs/native.md says where its parts come from.
import { spawnSync } from "node:child_process";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "rolldown";
import { readOptions } from "./options.mjs";

const { values, positionals } = readOptions({
  allowPositionals: true,
  options: {
    files: { type: "string", default: "src/kernels/wasm/native.test.ts,src/kernels/wasm/nativeBorders.test.ts" },
    // An emulator of programs keeps to itself what they say about pages.
    name: { type: "string", default: "^(?!.*large page)" },
  },
});
const root = fileURLToPath(new URL("..", import.meta.url));
// As deep as the folder of the modules that look for prebuilds/ from where they are.
const folder = join(root, `build/emulated/${process.pid}`);
const alone = join(root, "test/support/alone.ts");
const files = values.files.split(",");
if (positionals.length === 0) {
  console.error("test-emulated.mjs: expected -- and the command that runs a script; --help says what there is");
  process.exit(2);
}

await build({
  input: { alone, ...Object.fromEntries(files.map((file, n) => [`file${n}`, join(root, file)])) },
  platform: "node",
  transform: { target: "es2022" },
  resolve: { alias: { vitest: alone } },
  output: { dir: folder, entryFileNames: "[name].mjs", chunkFileNames: "[name]-[hash].mjs" },
});
const url = (name) => JSON.stringify(pathToFileURL(join(folder, name)).href);
const main = join(folder, "main.mjs");
writeFileSync(
  main,
  `import { runAlone } from ${url("alone.mjs")};
await runAlone([${files.map((_, n) => url(`file${n}.mjs`))}], new RegExp(${JSON.stringify(values.name)}));
`,
);
const [command, ...words] = positionals;
process.exitCode = spawnSync(command, [...words, main], { cwd: root, stdio: "inherit" }).status ?? 1;
rmSync(folder, { recursive: true });

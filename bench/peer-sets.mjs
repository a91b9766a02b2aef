// node-llama-cpp with one of its kinds of CPU kernels, so that a processor that has more is compared as one that has not. It always loads
// the best kind that lies beside its binary and has no setting for another: so here is a copy of the package in which the others are missing.

import { copyFileSync, cpSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const modules = join(import.meta.dirname, "node_modules");
const systems = { darwin: "mac", win32: "win" };
const platform = `${systems[process.platform] ?? process.platform}-${process.arch}`;
const kernels = /^(?:lib)?ggml-cpu-(.+)\.(?:so|dll|dylib)$/;

/**
 * @param set as llama.cpp calls them: haswell has AVX2, alderlake AVX-VNNI too, icelake AVX-512 with VNNI, sapphirerapids AMX
 * @returns the address of the module to import instead of node-llama-cpp
 */
export function peerModule(set) {
  const binaries = join(modules, "@node-llama-cpp", platform, "bins", platform);
  if (!existsSync(binaries))
    throw new Error(`no prebuilt node-llama-cpp for ${platform}: npm ci --ignore-scripts in bench/`);
  const files = readdirSync(binaries);
  const sets = files.flatMap((name) => kernels.exec(name)?.[1] ?? []);
  if (!sets.includes(set)) throw new Error(`node-llama-cpp has no kernels "${set}"; there are ${sets.join(", ")}`);
  const { version } = JSON.parse(readFileSync(join(modules, "node-llama-cpp/package.json"), "utf8"));
  // Inside node_modules, where the copy finds what it imports.
  const copy = join(modules, ".peer-sets", `${set}-${version}`);
  if (!existsSync(copy)) {
    const part = `${copy}.${process.pid}`;
    cpSync(join(modules, "node-llama-cpp"), part, { recursive: true });
    // Looked for there before the package of binaries is.
    const own = join(part, "bins", platform);
    mkdirSync(own, { recursive: true });
    for (const name of files)
      if ((kernels.exec(name)?.[1] ?? set) === set) copyFileSync(join(binaries, name), join(own, name));
    rmSync(copy, { recursive: true, force: true });
    renameSync(part, copy);
  }
  return pathToFileURL(join(copy, "dist/index.js")).href;
}

// The machine as far as it decides speed; no name of it.

import { readFileSync } from "node:fs";
import { arch, availableParallelism, cpus, loadavg, totalmem } from "node:os";
import { fileURLToPath } from "node:url";

export const isMain = (meta) => process.argv[1] === fileURLToPath(meta.url);

export function describeMachine() {
  return {
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores: availableParallelism(),
    // What a native peer may multiply with and WebAssembly may not.
    vectorFlags: cpuFlags([
      "avx2",
      "avx_vnni",
      "avx512f",
      "avx512_vnni",
      "amx_int8",
      "asimd",
      "asimddp",
      "i8mm",
      "sve",
    ]),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    arch: arch(),
    platform: process.platform,
    node: process.version,
    // Processes that wanted to run over the last minute: anything above a few tenths disturbs.
    loadAverage: loadavg()[0],
  };
}

/** Linux tells; elsewhere the list is empty. */
function cpuFlags(interesting) {
  try {
    const [line] = /^(flags|Features)\s*:.*$/m.exec(readFileSync("/proc/cpuinfo", "utf8")) ?? [""];
    const flags = new Set(line.split(/\s+/));
    return interesting.filter((flag) => flags.has(flag));
  } catch {
    return [];
  }
}

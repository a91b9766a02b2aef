// What every measurement shares: the prompt, medians, the machine.

import { readFileSync } from "node:fs";
import { arch, availableParallelism, cpus, totalmem } from "node:os";
import { fileURLToPath } from "node:url";

export const isMain = (meta) => process.argv[1] === fileURLToPath(meta.url);

/** The same known ids for everyone: spread over the vocabulary, past its special tokens. */
export const promptIds = (count, vocabSize) =>
  Array.from({ length: count }, (_, i) => 3 + ((i * 7919) % (vocabSize - 3)));

export function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** The machine as far as it decides speed; no name of it. */
export const describeMachine = () => ({
  cpu: cpus()[0]?.model.trim() ?? "unknown",
  cores: availableParallelism(),
  // What decides how a native peer multiplies; Linux only.
  vectorFlags: cpuFlags(["avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve"]),
  memoryGiB: Math.round(totalmem() / 2 ** 30),
  arch: arch(),
  platform: process.platform,
  node: process.version,
});

function cpuFlags(interesting) {
  try {
    const [line] = /^(flags|Features)\s*:.*$/m.exec(readFileSync("/proc/cpuinfo", "utf8")) ?? [""];
    const flags = new Set(line.split(/\s+/));
    return interesting.filter((flag) => flags.has(flag));
  } catch {
    return [];
  }
}

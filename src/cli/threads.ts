import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";

/**
 * Threads to use when none are asked for: one per physical core, since two hyperthreads share the load ports and the
 * memory channel that a matrix product saturates; never more than 16, beyond which the synchronisation costs more.
 */
export function defaultThreads(): number {
  const logical = availableParallelism();
  return Math.max(1, Math.min(16, logical, physicalCores(logical)));
}

/** Counts distinct sibling groups; where the system does not tell, assumes two hyperthreads per core above 4. */
function physicalCores(logical: number): number {
  try {
    const groups = new Set<string>();
    for (let cpu = 0; cpu < logical; cpu++)
      groups.add(readFileSync(`/sys/devices/system/cpu/cpu${cpu}/topology/thread_siblings_list`, "utf8").trim());
    return groups.size;
  } catch {
    const alwaysOneThreadPerCore = process.platform === "darwin" && process.arch === "arm64";
    return alwaysOneThreadPerCore || logical <= 4 ? logical : Math.ceil(logical / 2);
  }
}

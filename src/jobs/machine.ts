import { cpus, totalmem } from "node:os";

/** What measured rows were measured on. */
export interface Machine {
  cpu: string;
  /** Logical. */
  cpus: number;
  memoryBytes: number;
  /** "linux x64". */
  platform: string;
  node: string;
}

/** This machine. */
export function machine(): Machine {
  const processors = cpus();
  return {
    cpu: processors[0]?.model.trim() ?? "unknown CPU",
    cpus: processors.length,
    memoryBytes: totalmem(),
    platform: `${process.platform} ${process.arch}`,
    node: process.versions.node,
  };
}

/** The most memory this process has held, in bytes. */
export const peakResidentBytes = (): number => process.resourceUsage().maxRSS * 1024;

/** Processor time of this process so far, all threads, in milliseconds. */
export function processorMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

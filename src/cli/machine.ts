import type { Machine } from "../jobs/index.js";

export function machineInWords({ cpu, cpus, platform, node }: Machine): string {
  return `${cpu}, ${cpus} logical CPUs, ${platform}, Node.js ${node}`;
}

/** What a backend may take of the machine. */
export interface BackendOptions {
  /** Threads that work at the same time, the calling one included; default: what the machine has. */
  threads?: number;
  /** Refuses a GPU that the CPU plays; default false. */
  hardwareGpu?: boolean;
}

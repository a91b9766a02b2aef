/** What a backend may take of the machine. */
export interface BackendOptions {
  /** Threads that work at the same time, the calling one included; default: what the machine has. */
  threads?: number;
  /**
   * Works in one thread where `threads` cannot be had, and says why in `info.description`; otherwise that is a DeviceError.
   * Default: only where no `threads` are given.
   */
  fewerThreads?: boolean;
  /** Refuses a GPU that the CPU plays; default false. */
  hardwareGpu?: boolean;
}

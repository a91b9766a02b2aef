/** The few calls in which worker threads of Node and workers of browsers differ. */
export interface Host {
  post(message: unknown): void;
  terminate(): void;
}

/** What a host tells: messages of its program, and that it has ended with an error or could not begin. */
export interface HostEvents {
  onMessage(message: unknown): void;
  onError(cause: unknown): void;
}

export const isNode = () => typeof process !== "undefined" && process.versions?.node !== undefined;

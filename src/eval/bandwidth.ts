/**
 * Measures how fast this machine reads memory with `threads` threads, in bytes per second: a sum over a buffer far larger
 * than the caches. Backends provide it; it is the ceiling that decode speeds are held against.
 */
export type MeasureReadBandwidth = (threads: number) => Promise<number>;

/** Share of the read bandwidth that decoding at this speed uses. */
export function bandwidthShare(bytesPerToken: number, tokensPerSecond: number, readBytesPerSecond: number): number {
  return (bytesPerToken * tokensPerSecond) / readBytesPerSecond;
}

/** How a wait passes where asking whether something has arrived costs a processor. */
export interface Turns {
  /** Lets everything else have its turn, in which arrivals are noticed. */
  turn(): Promise<void>;
  /** Sleeps for a moment, and the whole thread with it. */
  nap(): void;
}

/**
 * Waits for what was asked for, asleep most of the time. In Node.js, Dawn asks the GPU in every turn of the event loop whether it is
 * done, and keeps a processor busy with turns; a nap in each makes them few. What arrives is noticed up to a nap later, so this is
 * for waits whose end holds up nobody: the GPU has more to do.
 */
export async function withNaps<T>(arrives: Promise<T>, { turn, nap }: Turns): Promise<T> {
  let pending = true;
  const settled = () => {
    pending = false;
  };
  arrives.then(settled, settled);
  for (await turn(); pending; await turn()) nap();
  return arrives;
}

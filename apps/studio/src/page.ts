// What all views of the page share.

export const element = <E extends HTMLElement>(id: string): E => document.getElementById(id) as E;
export const percent = (share: number) => `${Math.round(100 * share)} %`;
export const megabytes = (bytes: number) => `${(bytes / 1e6).toPrecision(3)} MB`;

/** Time left in words: a coarse one, as an estimate is. */
export function timeLeft(milliseconds: number): string {
  const seconds = Math.ceil(milliseconds / 1000);
  if (seconds < 90) return `${seconds} s left`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min left` : `${(minutes / 60).toPrecision(2)} h left`;
}

const months = "January February March April May June July August September October November December".split(" ");
const days = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday".split(" ");
const two = (n: number) => String(n).padStart(2, "0");

/** The directives of Python's `strftime` that chat templates use, in English and UTC. */
const directives: Readonly<Record<string, (date: Date) => string>> = {
  Y: (date) => String(date.getUTCFullYear()),
  y: (date) => two(date.getUTCFullYear() % 100),
  m: (date) => two(date.getUTCMonth() + 1),
  d: (date) => two(date.getUTCDate()),
  B: (date) => months[date.getUTCMonth()],
  b: (date) => months[date.getUTCMonth()].slice(0, 3),
  A: (date) => days[date.getUTCDay()],
  a: (date) => days[date.getUTCDay()].slice(0, 3),
  H: (date) => two(date.getUTCHours()),
  M: (date) => two(date.getUTCMinutes()),
  S: (date) => two(date.getUTCSeconds()),
  "%": () => "%",
};

/** Unknown directives stay as they are, as in Python on most systems. */
export function strftime(format: string, date: Date): string {
  return format.replace(/%(.)/g, (directive, letter: string) =>
    Object.hasOwn(directives, letter) ? directives[letter](date) : directive,
  );
}

import { TemplateError } from "./jinja/index.js";

const months = "January February March April May June July August September October November December".split(" ");
const days = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday".split(" ");
const hourOfTwelve = (date: Date) => date.getUTCHours() % 12 || 12;
const dayMs = 86_400_000;
const dayOfYear = (date: Date) => Math.floor((date.getTime() - Date.UTC(date.getUTCFullYear(), 0)) / dayMs) + 1;

/** Directives of Python's `strftime` whose figures are padded with zeros, with their digits. */
const figures: Readonly<Record<string, readonly [(date: Date) => number, number]>> = {
  Y: [(date) => date.getUTCFullYear(), 4],
  y: [(date) => date.getUTCFullYear() % 100, 2],
  m: [(date) => date.getUTCMonth() + 1, 2],
  d: [(date) => date.getUTCDate(), 2],
  j: [dayOfYear, 3],
  H: [(date) => date.getUTCHours(), 2],
  I: [hourOfTwelve, 2],
  M: [(date) => date.getUTCMinutes(), 2],
  S: [(date) => date.getUTCSeconds(), 2],
  f: [(date) => date.getUTCMilliseconds() * 1000, 6],
  w: [(date) => date.getUTCDay(), 1],
  u: [(date) => date.getUTCDay() || 7, 1],
};

const words: Readonly<Record<string, (date: Date) => string>> = {
  B: (date) => months[date.getUTCMonth()],
  b: (date) => months[date.getUTCMonth()].slice(0, 3),
  h: (date) => months[date.getUTCMonth()].slice(0, 3),
  A: (date) => days[date.getUTCDay()],
  a: (date) => days[date.getUTCDay()].slice(0, 3),
  p: (date) => (date.getUTCHours() < 12 ? "AM" : "PM"),
  e: (date) => String(date.getUTCDate()).padStart(2),
  F: (date) => strftime("%Y-%m-%d", date),
  D: (date) => strftime("%m/%d/%y", date),
  T: (date) => strftime("%H:%M:%S", date),
  R: (date) => strftime("%H:%M", date),
  c: (date) => strftime("%a %b %e %H:%M:%S %Y", date),
  x: (date) => strftime("%m/%d/%y", date),
  X: (date) => strftime("%H:%M:%S", date),
  s: (date) => String(Math.floor(date.getTime() / 1000)),
  Z: () => "",
  z: () => "",
  n: () => "\n",
  t: () => "\t",
  "%": () => "%",
};

/** Python's `strftime` in English and UTC; `%-d` and its like have no zeros in front. @throws TemplateError for what is unknown */
export function strftime(format: string, date: Date): string {
  return format.replace(/%(-?)([\s\S])/g, (directive, bare: string, letter: string) => {
    if (Object.hasOwn(figures, letter)) {
      const [figure, digits] = figures[letter];
      return bare ? String(figure(date)) : String(figure(date)).padStart(digits, "0");
    }
    if (!bare && Object.hasOwn(words, letter)) return words[letter](date);
    throw new TemplateError(`strftime_now does not know ${directive}`);
  });
}

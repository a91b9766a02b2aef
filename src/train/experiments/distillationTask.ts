import type { Random } from "../../core/index.js";
import { rouge } from "../../tasks/index.js";
import type { RecordTokens } from "../data/records.js";

/** One of five fields each, by number. */
export interface Report {
  place: number;
  day: number;
  sky: number;
  wind: number;
  degrees: number;
}

const split = (text: string): string[] => text.split(" ");

const places = split(
  "athens bergen cairo delhi essen fargo ghent hanoi izmir jena kyoto lagos malmo nairobi oslo porto quito riga sofia turin utrecht vienna warsaw york",
);
const days = split("monday tuesday wednesday thursday friday saturday sunday");
const degrees = Array.from({ length: 30 }, (_, i) => String(i));

/** What a sky and a wind are called, in each of the four ways of telling a report. */
const skies = [
  "sunny bright radiant gleaming",
  "clear cloudless open stainless",
  "cloudy grey overcast leaden",
  "rainy wet pouring weeping",
  "snowy white drifting wintry",
  "foggy misty hazy veiled",
  "stormy wild raging furious",
  "windy gusty breezy blustering",
].map(split);
const winds = [
  "no faint calm sleeping",
  "light soft gentle tender",
  "fresh brisk lively dancing",
  "strong hard heavy roaring",
].map(split);

/** How often each way is taken: 4, 3, 2 and 1 times of 10. */
const bounds = [0.4, 0.7, 0.9, 1];

type Words = Record<keyof Report, string>;
/** The order of what is said, and the words of skies and winds, belong together: a text that begins in one way goes on in it. */
const ways: readonly ((words: Words) => string)[] = [
  ({ place, day, sky, wind, degrees }) => `on ${day} ${place} is ${sky} with ${wind} wind at ${degrees} degrees`,
  ({ place, day, sky, wind, degrees }) => `${degrees} degrees and ${wind} wind for ${place} and it is ${sky} ${day}`,
  ({ place, day, sky, wind, degrees }) => `expect a ${sky} sky and ${wind} air over ${place} ${day} near ${degrees}`,
  ({ place, day, sky, wind, degrees }) =>
    `behold ${place} ${degrees} warm its ${wind} breeze beneath ${sky} skies ${day}`,
];

const wordsOf = ({ place, day, sky, wind, degrees: warm }: Report, way: number): Words => ({
  place: places[place],
  day: days[day],
  sky: skies[sky][way],
  wind: winds[wind][way],
  degrees: degrees[warm],
});

/** Every right text for a report. */
export const textsOf = (report: Report): string[] => ways.map((tell, way) => tell(wordsOf(report, way)));

/** In the vocabulary: what ends a text, the names of skies and winds in a prompt, and every word. */
const end = "<end>";
const skyNames = skies.map((_, i) => `sky:${i}`);
const windNames = winds.map((_, i) => `wind:${i}`);
const connectives = textsOf({ place: 0, day: 0, sky: 0, wind: 0, degrees: 0 }).flatMap(split);
export const vocabulary: readonly string[] = [
  ...new Set([
    end,
    ...places,
    ...days,
    ...degrees,
    ...skyNames,
    ...windNames,
    ...skies.flat(),
    ...winds.flat(),
    ...connectives,
  ]),
];
const ids = new Map(vocabulary.map((word, id) => [word, id]));

/** Tokens of a prompt, and of a response with what ends and fills it. */
export const promptLength = 5;
export const responseLength =
  Math.max(...textsOf({ place: 0, day: 0, sky: 0, wind: 0, degrees: 0 }).map((text) => split(text).length)) + 1;
export const window = promptLength + responseLength;
export const endId = 0;

const drawn = (random: Random): Report => ({
  place: random.integer(places.length),
  day: random.integer(days.length),
  sky: random.integer(skies.length),
  wind: random.integer(winds.length),
  degrees: random.integer(degrees.length),
});

export const drawReports = (random: Random, count: number): Report[] =>
  Array.from({ length: count }, () => drawn(random));

/** One of the ways, as often as it is taken. */
export function drawText(report: Report, random: Random): string {
  const at = random.uniform();
  const way = bounds.findIndex((bound) => at < bound);
  return textsOf(report).at(way)!;
}

export const promptOf = ({ place, day, sky, wind, degrees: warm }: Report): number[] =>
  [places[place], days[day], skyNames[sky], windNames[wind], degrees[warm]].map((word) => ids.get(word)!);

/** Token ids, ended and filled up. */
export function responseOf(text: string): number[] {
  const known = split(text).map((word) => ids.get(word)!);
  return [...known, ...Array<number>(responseLength - known.length).fill(endId)];
}

/** The words before the end. */
export function wordsBefore(response: ArrayLike<number>): string {
  const all = Array.from(response);
  const length = all.indexOf(endId);
  return all
    .slice(0, length < 0 ? all.length : length)
    .map((id) => vocabulary[id])
    .join(" ");
}

/** Windows of prompt and response: the response and its end are learnt, what fills a window behind it too, which is soon known. */
export function windowsFor(reports: readonly Report[], responses: readonly ArrayLike<number>[]): RecordTokens {
  const tokens = new Int32Array(reports.length * window);
  const labels = new Int32Array(reports.length * window).fill(-1);
  for (const [r, report] of reports.entries()) {
    tokens.set([...promptOf(report), ...Array.from(responses[r])], r * window);
    labels.set(Array.from(responses[r]), r * window + promptLength - 1);
  }
  return { tokens, labels, window, cut: 0 };
}

/** The best Rouge-L F1 against any right text, and whether the text is one of them. */
export function judge(report: Report, written: string): { rougeL: number; right: boolean } {
  const references = textsOf(report);
  return {
    rougeL: Math.max(...references.map((reference) => rouge("rougeL", written, reference).f1)),
    right: references.includes(written),
  };
}

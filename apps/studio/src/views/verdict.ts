import type { Answer } from "../protocol.js";
import { megabytes, percent } from "./page.js";

/** Below this a processor may hold all weights in its cache. */
const cacheBytes = 100e6;

interface Contender extends Answer {
  letter: string;
}

/** What a comparison came to, in words: every variant against the first. */
export function verdict([first, ...others]: readonly Contender[]): string {
  return others.map((other) => against(first, other)).join(" ");
}

function against(first: Contender, other: Contender): string {
  if (!first.tokensPerSecond || !other.tokensPerSecond || !first.bytesPerToken || !other.bytesPerToken) return "";
  const speed = other.tokensPerSecond / first.tokensPerSecond;
  const parts = first.tokenIds.findIndex((id, i) => id !== other.tokenIds[i]);
  const words =
    speed > 1.05
      ? `at ${speed.toFixed(2)} × the speed of ${first.letter}`
      : speed < 0.95
        ? `slower than ${first.letter}`
        : `as fast as ${first.letter}`;
  const texts =
    parts < 0
      ? "the texts are the same"
      : `the texts part at token ${parts + 1}: from there on each follows its own words`;
  const read = percent(other.bytesPerToken / first.bytesPerToken);
  const cached =
    speed > 1.05 || first.bytesPerToken > cacheBytes
      ? ""
      : ` A model of ${megabytes(first.bytesPerToken)} fits the processor's cache, where bytes that are not read save no ` +
        "time; models of a few hundred MB gain.";
  return `${other.letter} ran ${words} and read ${read} of its weights per token; ${texts}.${cached}`;
}

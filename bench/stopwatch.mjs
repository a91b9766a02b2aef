// Times samples, and knows which of them other processes disturbed.

import { median } from "./rounds.mjs";

/**
 * A sample is disturbed when the system took a processor away from a thread of this process: on a machine of one's own that does
 * not happen within a token. Long samples may lose one for every so many milliseconds, to the system itself.
 */
const msPerSwitch = 100;

/** Processor time of all threads of this process so far. A page is told neither of these. */
export const cpuMs = () => {
  const usage = globalThis.process?.cpuUsage?.();
  return usage && (usage.user + usage.system) / 1000;
};
const switches = () => globalThis.process?.resourceUsage?.().involuntaryContextSwitches ?? 0;

export class Stopwatch {
  #since = performance.now();
  #switches = switches();
  #cpuMs = cpuMs();

  /**
   * The time since the last one, or since the start, and the processor time of all threads of this process meanwhile: with one
   * thread, which waits for no other, this is what the work takes however busy the machine is.
   * @returns { ms, cpuMs, disturbed }
   */
  lap() {
    const [now, taken, used] = [performance.now(), switches(), cpuMs()];
    const ms = now - this.#since;
    const disturbed = taken - this.#switches > 1 + Math.floor(ms / msPerSwitch);
    this.#since = performance.now();
    this.#switches = switches();
    const since = this.#cpuMs;
    this.#cpuMs = cpuMs();
    return { ms, cpuMs: used === undefined ? undefined : used - since, disturbed };
  }
}

/** Undisturbed samples that make a median. */
const enough = 5;

const clean = (samples) => samples.filter(({ disturbed }) => !disturbed);

/** Median of the undisturbed tokens where there are enough, else of all. */
const typicalMs = (samples) =>
  median((clean(samples).length >= Math.min(enough, samples.length) ? clean(samples) : samples).map(({ ms }) => ms));

/** By processor time, of all samples; undefined in a page. */
function perCpuSecond({ prefills, tokens, prompt }) {
  if (tokens[0].cpuMs === undefined) return {};
  return {
    prefillTokensPerCpuSecond: (prompt * 1000) / Math.min(...prefills.map(({ cpuMs }) => cpuMs)),
    decodeTokensPerCpuSecond: 1000 / median(tokens.map(({ cpuMs }) => cpuMs)),
  };
}

/** Attempts at most for one result. */
const attempts = 4;

/**
 * Runs `measure` again while others disturb it.
 * @param measure () → { prefill: sample, tokens: samples, … }
 * @returns the same with speeds, what was disturbed, and how often it was run
 */
export async function undisturbed(measure, { prompt, tokens: wanted }) {
  const runs = [];
  const settled = () =>
    runs.some(({ prefill }) => !prefill.disturbed) &&
    clean(runs.flatMap(({ tokens }) => tokens)).length >= Math.min(enough, wanted);
  while (runs.length === 0 || (!settled() && runs.length < attempts)) runs.push(await measure());
  const prefills = runs.map(({ prefill }) => prefill);
  const tokens = runs.flatMap((run) => run.tokens);
  const { prefill: _, tokens: __, ...others } = runs.at(-1);
  return {
    ...others,
    prefillTokensPerSecond:
      (prompt * 1000) / Math.min(...(clean(prefills).length ? clean(prefills) : prefills).map(({ ms }) => ms)),
    decodeTokensPerSecond: 1000 / typicalMs(tokens),
    ...perCpuSecond({ prefills, tokens, prompt }),
    runs: runs.length,
    tokens: tokens.length,
    disturbedTokens: tokens.length - clean(tokens).length,
    prefillDisturbed: clean(prefills).length === 0,
  };
}

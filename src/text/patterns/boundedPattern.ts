import { compilePattern, type Instruction } from "./program.js";

/** Counts work; throws where there was too much of it. */
export interface WorkCounter {
  /** Steps of matching. */
  steps(count: number): void;
  /** Characters of a text that a replacement makes, beyond those that were there. */
  growth(characters: number): void;
}

/** Ways back that are remembered at once; a run of a million letters needs as many. */
const maxChoices = 4_000_000;

/**
 * A regular expression of a file that is not ours, for the places where a string takes one (`match`, `matchAll`, `split`,
 * `replaceAll`): its steps are counted, so that no pattern and no text keeps it for ever. What is put in place of a match
 * is taken as it stands ("$1" too, as in the Rust library) and counted while it grows.
 */
export class BoundedPattern extends RegExp {
  readonly #counter: WorkCounter;
  /** Undefined: V8 and its like match it, being known to be quick. */
  readonly #program: readonly Instruction[] | undefined;

  /**
   * @param pattern has the flag `u`
   * @param native whether the pattern is known to be quick on any text
   * @throws SyntaxError where a pattern that is not native cannot be matched in counted steps
   */
  constructor(pattern: RegExp, flags: string = pattern.flags, counter?: WorkCounter, native = false) {
    super(pattern, flags);
    // `matchAll` and `split` make a copy with other flags.
    const copied = pattern instanceof BoundedPattern ? pattern : undefined;
    this.#counter = copied === undefined ? counter! : copied.#counter;
    this.#program = copied !== undefined ? copied.#program : native ? undefined : compilePattern(pattern.source);
  }

  override exec(text: string): RegExpExecArray | null {
    if (this.#program === undefined) return super.exec(text);
    for (let start = this.lastIndex; start <= text.length; start += text.codePointAt(start)! > 0xffff ? 2 : 1) {
      const end = matchAt(this.#program, text, start, this.#counter);
      if (end >= 0) {
        this.lastIndex = end;
        return Object.assign([text.slice(start, end)], { index: start, input: text }) as unknown as RegExpExecArray;
      }
      if (this.sticky || start === text.length) break;
    }
    this.lastIndex = 0;
    return null;
  }

  // biome-ignore lint/suspicious/noExplicitAny: the library's overloads take texts and functions
  override [Symbol.replace](text: string, content: any): string {
    const parts: string[] = [];
    let done = 0;
    for (const { 0: found, index } of text.matchAll(this)) {
      this.#counter.growth(content.length - found.length);
      parts.push(text.slice(done, index), content);
      done = index + found.length;
    }
    parts.push(text.slice(done));
    return parts.join("");
  }
}

/** The end of the match that begins at `start`, as a backtracking matcher finds it; −1 where there is none. */
function matchAt(program: readonly Instruction[], text: string, start: number, counter: WorkCounter): number {
  /** Where to go on after a failure, in threes: step and place, or −1 − register and its earlier place; and a spare. */
  const choices: number[] = [];
  const registers: number[] = [];
  let next = 0;
  let at = start;
  let steps = 0;
  const countEvery = 4096;
  for (;;) {
    if (++steps === countEvery) {
      counter.steps(steps);
      steps = 0;
      if (choices.length > 2 * maxChoices) counter.steps(Number.POSITIVE_INFINITY);
    }
    if (next === program.length) {
      counter.steps(steps);
      return at;
    }
    const step = program[next++];
    let failed = false;
    switch (step.do) {
      case "character": {
        const codePoint = step.backward ? codePointBefore(text, at) : text.codePointAt(at);
        if (codePoint === undefined || !step.is(codePoint)) failed = true;
        else at += (codePoint > 0xffff ? 2 : 1) * (step.backward ? -1 : 1);
        break;
      }
      case "try":
        choices.push(step.lazy ? next : step.to, at);
        if (step.lazy) next = step.to;
        break;
      case "jump":
        next = step.to;
        break;
      case "mark":
        choices.push(-1 - step.register, registers[step.register] ?? -1);
        registers[step.register] = at;
        break;
      case "moved":
        failed = registers[step.register] === at;
        break;
      case "look":
        failed = matchAt(step.program, text, at, counter) >= 0 === step.negated;
    }
    while (failed) {
      if (choices.length === 0) {
        counter.steps(steps);
        return -1;
      }
      at = choices.pop()!;
      next = choices.pop()!;
      failed = next < 0;
      if (failed) registers[-1 - next] = at;
    }
  }
}

function codePointBefore(text: string, at: number): number | undefined {
  if (at === 0) return undefined;
  const pair = at > 1 ? text.codePointAt(at - 2)! : 0;
  return pair > 0xffff ? pair : text.charCodeAt(at - 1);
}

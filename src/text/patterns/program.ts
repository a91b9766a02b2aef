import { type PatternNode, parsePattern } from "./syntax.js";

/** One step of a compiled pattern. Steps follow each other; `to` is the index of another one. */
export type Instruction =
  | { do: "character"; is: (codePoint: number) => boolean; backward: boolean }
  /** Goes on with the next step, and with `to` if that fails; the other way round where it is lazy. */
  | { do: "try"; to: number; lazy: boolean }
  | { do: "jump"; to: number }
  /** Notes the place in a register … */
  | { do: "mark"; register: number }
  /** … and fails where it is still the same: a repetition that takes nothing ends. */
  | { do: "moved"; register: number }
  | { do: "look"; program: readonly Instruction[]; negated: boolean };

/** Published patterns have some 200. */
const maxInstructions = 20_000;
const maxClasses = 256;

/**
 * Compiles a pattern for a matcher that goes back over its choices with a list, not by recursion.
 * @param source of a JavaScript regular expression with the flag `u`
 * @throws SyntaxError
 */
export function compilePattern(source: string): readonly Instruction[] {
  const classes = new Map<string, (codePoint: number) => boolean>();
  let instructions = 0;
  let registers = 0;

  function compile(root: PatternNode, backward: boolean): Instruction[] {
    const program: Instruction[] = [];
    const emit = <Step extends Instruction>(step: Step): Step => {
      if (++instructions > maxInstructions) throw new SyntaxError(`more than ${maxInstructions} steps`);
      program.push(step);
      return step;
    };

    function add(node: PatternNode): void {
      switch (node.kind) {
        case "character":
          emit({ do: "character", is: classOf(node.source), backward });
          return;
        case "sequence":
          for (const each of backward ? node.nodes.toReversed() : node.nodes) add(each);
          return;
        case "look":
          emit({ do: "look", program: compile(node.node, node.behind), negated: node.negated });
          return;
        case "either": {
          const ends = node.nodes.slice(0, -1).map((each) => {
            const choice = emit({ do: "try", to: 0, lazy: false });
            add(each);
            const end = emit({ do: "jump", to: 0 });
            choice.to = program.length;
            return end;
          });
          add(node.nodes.at(-1)!);
          for (const end of ends) end.to = program.length;
          return;
        }
        case "repeat":
          repeat(node);
      }
    }

    function repeat({ node, min, max, lazy }: PatternNode & { kind: "repeat" }): void {
      for (let i = 0; i < min; i++) add(node);
      if (max === Number.POSITIVE_INFINITY) {
        const start = program.length;
        const choice = emit({ do: "try", to: 0, lazy });
        if (node.kind === "character") add(node);
        else {
          const register = registers++;
          emit({ do: "mark", register });
          add(node);
          emit({ do: "moved", register });
        }
        emit({ do: "jump", to: start });
        choice.to = program.length;
        return;
      }
      const choices: { to: number }[] = [];
      for (let i = min; i < max; i++) {
        choices.push(emit({ do: "try", to: 0, lazy }));
        add(node);
      }
      for (const choice of choices) choice.to = program.length;
    }

    add(root);
    return program;
  }

  function classOf(character: string): (codePoint: number) => boolean {
    const known = classes.get(character);
    if (known !== undefined) return known;
    const only = character.codePointAt(0)!;
    const isLiteral = String.fromCodePoint(only) === character && character !== ".";
    if (!isLiteral && classes.size >= maxClasses)
      throw new SyntaxError(`more than ${maxClasses} classes of characters`);
    const is = isLiteral ? (codePoint: number) => codePoint === only : membership(character);
    if (!isLiteral) classes.set(character, is);
    return is;
  }

  return compile(parsePattern(source), false);
}

/** Whether a class holds a character: asked of a regular expression of that one class, and remembered. */
function membership(source: string): (codePoint: number) => boolean {
  const pattern = new RegExp(`^${source}$`, "u");
  const test = (codePoint: number) => pattern.test(String.fromCodePoint(codePoint));
  let known: Uint8Array | undefined;
  return (codePoint) => {
    if (codePoint > 0xffff) return test(codePoint);
    known ??= new Uint8Array(2 ** 16);
    if (known[codePoint] === 0) known[codePoint] = test(codePoint) ? 1 : 2;
    return known[codePoint] === 1;
  };
}

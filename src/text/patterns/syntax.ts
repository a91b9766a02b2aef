/** A regular expression as the pattern matcher runs it. Groups capture nothing: splitting and replacing need whole matches only. */
export type PatternNode =
  | { kind: "character"; source: string }
  | { kind: "sequence"; nodes: readonly PatternNode[] }
  | { kind: "either"; nodes: readonly PatternNode[] }
  | { kind: "repeat"; node: PatternNode; min: number; max: number; lazy: boolean }
  | { kind: "look"; node: PatternNode; behind: boolean; negated: boolean };

/** Groups inside each other; published patterns have four. */
const maxDepth = 64;

const tokens = {
  group: /\((?:\?(?:[:=!]|<[=!]|<\w+>))?/y,
  set: /\[(?:\\[\s\S]|[^\]\\])*\]/uy,
  escape:
    /\\(?:[pP]\{[^}]*\}|u\{[\da-f]+\}|u[dD][89abAB][\da-f]{2}\\u[dD][c-fC-F][\da-f]{2}|u[\da-f]{4}|x[\da-f]{2}|c[a-z]|[\s\S])/iuy,
  quantifier: /(?:[*+?]|\{(\d+)(,?)(\d*)\})(\??)/y,
  literal: /[\s\S]/uy,
};

/**
 * Reads the source of a JavaScript regular expression with the flag `u`, as the tokenizer library makes it from Oniguruma's
 * syntax: anchors and word boundaries are lookarounds there.
 * @throws SyntaxError for what cannot be matched in counted steps: back references
 */
export function parsePattern(source: string): PatternNode {
  let at = 0;
  let depth = 0;
  const take = (token: RegExp): RegExpExecArray | null => {
    token.lastIndex = at;
    const found = token.exec(source);
    if (found !== null) at = token.lastIndex;
    return found;
  };

  function either(): PatternNode {
    if (++depth > maxDepth) throw new SyntaxError(`more than ${maxDepth} groups inside each other`);
    const nodes = [sequence()];
    for (; source[at] === "|"; nodes.push(sequence())) at++;
    depth--;
    return nodes.length === 1 ? nodes[0] : { kind: "either", nodes };
  }

  function sequence(): PatternNode {
    const nodes: PatternNode[] = [];
    while (at < source.length && source[at] !== "|" && source[at] !== ")") nodes.push(repeated(atom()));
    return { kind: "sequence", nodes };
  }

  function atom(): PatternNode {
    const group = take(tokens.group)?.[0];
    if (group !== undefined) {
      const node = either();
      at++;
      if (!/[=!]$/.test(group)) return node;
      return { kind: "look", node, behind: group.includes("<"), negated: group.endsWith("!") };
    }
    const [character] = (take(tokens.set) ?? take(tokens.escape) ?? take(tokens.literal))!;
    if (/^(?:[$^]|\\[1-9bBk])/.test(character)) throw new SyntaxError(`${character} is not supported`);
    return { kind: "character", source: character };
  }

  function repeated(node: PatternNode): PatternNode {
    const found = take(tokens.quantifier);
    if (found === null) return node;
    const [whole, least, comma, most, lazy] = found;
    const [min, max] =
      least === undefined
        ? [whole[0] === "+" ? 1 : 0, whole[0] === "?" ? 1 : Number.POSITIVE_INFINITY]
        : [Number(least), comma === "" ? Number(least) : most === "" ? Number.POSITIVE_INFINITY : Number(most)];
    return { kind: "repeat", node, min, max, lazy: lazy === "?" };
  }

  return either();
}

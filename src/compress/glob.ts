/**
 * Whether a dotted tensor name matches a pattern: `*` stands for any run of characters without a dot, `**` for any run,
 * everything else for itself. Takes pattern length × name length steps at most, whatever the pattern.
 */
export function matchesGlob(pattern: string, name: string): boolean {
  const tokens = pattern.match(/\*\*|\*|[^*]/g) ?? [];
  // reached[t]: the part of the name read so far matches the first t tokens.
  let reached = new Uint8Array(tokens.length + 1);
  reached[0] = 1;
  passStars(tokens, reached);
  for (const character of name) {
    const next = new Uint8Array(tokens.length + 1);
    for (let t = 0; t < tokens.length; t++) {
      if (reached[t] === 0) continue;
      if (tokens[t] === "**" || (tokens[t] === "*" && character !== ".")) next[t] = 1;
      else if (tokens[t] === character) next[t + 1] = 1;
    }
    passStars(tokens, next);
    reached = next;
  }
  return reached[tokens.length] === 1;
}

/** Stars also match nothing. */
function passStars(tokens: readonly string[], reached: Uint8Array): void {
  for (let t = 0; t < tokens.length; t++) if (reached[t] === 1 && tokens[t].startsWith("*")) reached[t + 1] = 1;
}

/** Terms that are read before they are added: a GPU waits once for all of them. */
const atOnce = 8;

/** WGSL that adds the terms i of [first, end) to `sum`. */
export function addTerms(sum: string, first: string, end: string, term: (i: string) => string): string {
  const pairs = (terms: readonly string[]): string =>
    terms.length === 1
      ? terms[0]
      : `(${pairs(terms.slice(0, terms.length / 2))} + ${pairs(terms.slice(terms.length / 2))})`;
  const terms = Array.from({ length: atOnce }, (_, i) => term(`(i + ${i}u)`));
  return /* wgsl */ `{
    var i = ${first};
    for (; i + ${atOnce}u <= ${end}; i += ${atOnce}u) { ${sum} += ${pairs(terms)}; }
    for (; i < ${end}; i += 1u) { ${sum} += ${term("i")}; }
  }`;
}

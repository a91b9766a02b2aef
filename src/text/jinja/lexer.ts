import { TemplateError } from "./values.js";

export interface Token {
  type: "text" | "begin" | "end" | "name" | "string" | "integer" | "float" | "operator";
  /** Of `begin`: "{{" or "{%". */
  value: string;
  line: number;
}

const tagStart = /\{[{%#]/g;
const rawStart = /\{%[-+]?\s*raw\s*(-%\}\s*|%\})/y;
const rawEnd = /\{%([-+]?)\s*endraw\s*(?:\+%\}|-%\}\s*|%\})/g;
const commentEnd = /-#\}\s*|\+#\}|#\}/g;
const blank = /\s+/y;
const pieces: readonly (readonly [Token["type"], RegExp])[] = [
  ["float", /\d[\d_]*(?:\.\d[\d_]*(?:[eE][+-]?\d+)?|[eE][+-]?\d+)/y],
  ["integer", /0[xX][\da-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|\d[\d_]*/y],
  ["name", /[\p{L}_][\p{L}\p{N}_]*/uy],
  ["string", /'(?:[^'\\]|\\[\s\S])*'|"(?:[^"\\]|\\[\s\S])*"/y],
  ["operator", /\/\/|\*\*|[=!<>]=|[-+*/%~<>=.:|,;()[\]{}]/y],
];
const closing: Readonly<Record<string, string>> = { "(": ")", "[": "]", "{": "}" };

/** What becomes of the blanks around tags. */
export interface WhitespaceOptions {
  /**
   * Whether the line end behind a block tag, the blanks in front of one that begins its line, and the line end at the end of
   * the template are left out, as where chat templates are run (`trim_blocks`, `lstrip_blocks`). Default true.
   */
  trim?: boolean;
}

/**
 * Cuts a template into tokens. Goes over the text once.
 * @throws TemplateError with the line
 */
export function tokenize(template: string, { trim = true }: WhitespaceOptions = {}): Token[] {
  const unix = template.replace(/\r\n?/g, "\n");
  const source = trim ? unix.replace(/\n$/, "") : unix;
  const tokens: Token[] = [];
  let at = 0;
  let [line, counted] = [1, 0];
  /** What follows a tag begins a line. */
  let lineStart = true;

  const lineAt = (position: number) => {
    for (; counted < position; counted++) if (source.charCodeAt(counted) === 10) line++;
    return line;
  };
  const fail = (problem: string) => new TemplateError(`line ${lineAt(at)}: ${problem}`);
  const push = (type: Token["type"], value: string) => tokens.push({ type, value, line: lineAt(at) });
  const match = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = at;
    return pattern.exec(source);
  };
  /** Text up to `end`, less the blanks that the mark of the tag after it takes. */
  const pushText = (end: number, mark: string, isBlock: boolean) => {
    let text = source.slice(at, end);
    if (mark === "-") text = text.trimEnd();
    else if (trim && isBlock && mark !== "+") {
      const begin = text.lastIndexOf("\n") + 1;
      if ((begin > 0 || lineStart) && text.slice(begin).trim() === "") text = text.slice(0, begin);
    }
    if (text !== "") push("text", text);
  };

  /** The end of a comment or of what is raw, and its line end. */
  const afterTag = (end: number) =>
    trim && /[^-+][%#]\}$/.test(source.slice(Math.max(0, end - 3), end)) && source[end] === "\n" ? end + 1 : end;

  while (at < source.length) {
    const found = match(tagStart);
    if (found === null) {
      pushText(source.length, "+", false);
      break;
    }
    const kind = found[0];
    const mark = source[found.index + 2];
    pushText(found.index, mark, kind !== "{{");
    at = found.index;
    if (kind === "{#") {
      at += 2;
      const end = match(commentEnd);
      if (end === null) throw fail("a comment without end");
      at = afterTag(commentEnd.lastIndex);
      lineStart = source[at - 1] === "\n";
      continue;
    }
    if (match(rawStart) !== null) {
      at = rawStart.lastIndex;
      const end = match(rawEnd);
      if (end === null) throw fail("{% raw %} without end");
      lineStart = false;
      pushText(end.index, end[1], true);
      at = afterTag(rawEnd.lastIndex);
      lineStart = source[at - 1] === "\n";
      continue;
    }
    push("begin", kind);
    at += mark === "-" || mark === "+" ? 3 : 2;
    readTag(kind === "{{" ? "}}" : "%}");
  }
  return tokens;

  function readTag(end: string): void {
    const open: string[] = [];
    for (;;) {
      if (match(blank) !== null) at = blank.lastIndex;
      if (at >= source.length) throw fail(`a tag without ${end}`);
      const strips = source[at] === "-" || source[at] === "+" ? source[at] : "";
      if (open.length === 0 && source.startsWith(end, at + strips.length)) {
        push("end", end);
        at += strips.length + 2;
        if (strips === "-") {
          if (match(blank) !== null) at = blank.lastIndex;
        } else if (trim && end === "%}" && strips === "" && source[at] === "\n") at++;
        lineStart = source[at - 1] === "\n";
        return;
      }
      const piece = pieces.find(([, pattern]) => match(pattern) !== null);
      if (piece === undefined) throw fail(`unexpected ${JSON.stringify(source[at])}`);
      const [type, pattern] = piece;
      const value = source.slice(at, pattern.lastIndex);
      if (Object.hasOwn(closing, value)) open.push(closing[value]);
      else if (/^[)\]}]$/.test(value) && open.pop() !== value) throw fail(`unexpected ${value}`);
      push(type, type === "string" ? unescaped(value.slice(1, -1)) : value);
      at += value.length;
    }
  }
}

const escapes: Readonly<Record<string, string>> = {
  n: "\n",
  t: "\t",
  r: "\r",
  b: "\b",
  f: "\f",
  v: "\v",
  a: "\x07",
  "\n": "",
};

/** Escapes of a string of Python. */
const unescaped = (text: string): string =>
  text.replace(
    /\\(?:x([\da-fA-F]{2})|u([\da-fA-F]{4})|U([\da-fA-F]{8})|([0-7]{1,3})|([\s\S]))/g,
    (whole, x, u, U, octal, other) => {
      const code = x ?? u ?? U;
      if (code !== undefined) return codePoint(Number.parseInt(code, 16));
      if (octal !== undefined) return codePoint(Number.parseInt(octal, 8));
      if (other === "\\" || other === "'" || other === '"') return other;
      return escapes[other] ?? whole;
    },
  );

function codePoint(code: number): string {
  if (code > 0x10ffff) throw new TemplateError("an escape beyond Unicode");
  return String.fromCodePoint(code);
}

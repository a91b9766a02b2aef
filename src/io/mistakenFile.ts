import { FormatError } from "../core/index.js";

/** What else a file may be that should hold weights or JSON, by how it begins. */
const kinds: readonly { begins: RegExp; problem: string; hint: string }[] = [
  {
    begins: /^version https:\/\/git-lfs/,
    problem: "a Git LFS pointer, not the file itself",
    hint: "Run git lfs pull in the clone, or download the file",
  },
  {
    begins: /^\s*<(?:!doctype|html|\?xml|head)/i,
    problem: "a web page in place of the file",
    hint: "The server answered with a page (an error, a login, or the index of an application); fetch the file itself",
  },
  { begins: /^GGUF/, problem: "a GGUF file", hint: "Give it a name that ends in .gguf" },
  {
    begins: /^PK[^a-z]{2}/,
    problem: "a ZIP archive, as PyTorch saves weights",
    hint: "Convert it to safetensors; only safetensors and GGUF weights are read",
  },
];

/** Bytes that tell. */
export const tellingBytes = 64;

/** @throws FormatError when a file that should hold something else is one of the things people find in its place */
export function refuseMistaken(start: Uint8Array, file: string): void {
  const text = String.fromCharCode(...start.subarray(0, tellingBytes));
  const found = kinds.find(({ begins }) => begins.test(text));
  if (found !== undefined) throw new FormatError({ file, problem: found.problem, hint: found.hint });
}

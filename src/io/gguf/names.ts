/** Under this name the weights of a GGUF model lie in a model directory, and in `ggufFiles`. */
export const ggufFileName = "model.gguf";
/** And the further parts of one that is split. */
export const ggufPartName = (part: number, count: number): string =>
  part === 0 ? ggufFileName : partName("model", part, count);

/** `-00001-of-00003` before the extension. */
export const partName = (stem: string, part: number, count: number): string =>
  `${stem}-${String(part + 1).padStart(5, "0")}-of-${String(count).padStart(5, "0")}.gguf`;

/** Stem and count in the name of a part; undefined for other names. */
export function parsePartName(name: string): { stem: string; part: number; count: number } | undefined {
  const [, stem, part, count] = /^(.+)-(\d{5})-of-(\d{5})\.gguf$/i.exec(name) ?? [];
  return stem === undefined ? undefined : { stem, part: Number(part) - 1, count: Number(count) };
}

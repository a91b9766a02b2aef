import { realpath } from "node:fs/promises";
import { isAbsolute, join, resolve, sep } from "node:path";
import { quote, UsageError } from "../core/index.js";
import type { LocalModelFiles } from "../io/index.js";
import { bundledModel, directoryFiles, isBundledModel, isBundledText, resolveModel } from "../io/index.node.js";
import type { TaskFiles } from "../tasks/index.js";
import { taskFolder } from "../tasks/index.node.js";

const outside = (name: string, root: string) =>
  new UsageError(`${quote(name)} leads out of this worker's \`root\` ${root}; jobs open only what lies in it`);

/**
 * The path of a file or folder that a job names, links followed.
 * @throws UsageError when it is none below `root`
 */
export async function pathUnderRoot(root: string, name: string): Promise<string> {
  const base = await realpath(root);
  const wanted = resolve(base, name);
  if (isAbsolute(name) || name.includes("\0") || !isWithin(base, wanted)) throw outside(name, root);
  const found = await realpath(wanted).catch(() => undefined);
  if (found === undefined) throw new UsageError(`this worker's \`root\` ${root} has no ${quote(name)}`);
  if (!isWithin(base, found)) throw outside(name, root);
  return found;
}

const isWithin = (base: string, path: string) =>
  path === base || path.startsWith(base.endsWith(sep) ? base : base + sep);

/**
 * The files of a model that a job names: a folder or GGUF file below `root`, none of them a link that leads out, or what comes with
 * the package. Nothing is downloaded.
 * @throws UsageError, FormatError
 */
export async function modelUnderRoot(root: string, name: string): Promise<LocalModelFiles> {
  if (isBundledModel(name)) return directoryFiles(bundledModel(name));
  const files = await resolveModel(await pathUnderRoot(root, name));
  const base = await realpath(root);
  for (const file of await files.names()) {
    const path = files.pathOf(file);
    const found = path === undefined ? base : await realpath(path).catch(() => base);
    if (!isWithin(base, found)) throw outside(`${name}/${file}`, root);
  }
  return files;
}

/** The path of a text that a job names, or the name of one that comes with the package. @throws UsageError */
export const textUnderRoot = async (root: string, name: string): Promise<string> =>
  isBundledText(name) ? name : pathUnderRoot(root, name);

/**
 * The files of a folder of tasks, or of their data, that a job names; none of them is a link that leads out.
 * @throws UsageError
 */
export async function taskFilesUnderRoot(root: string, name: string): Promise<TaskFiles> {
  const files = taskFolder(await pathUnderRoot(root, name));
  /** Before anything is looked at: whether something is there is told of no other place either. */
  const check = async (path: string) => {
    const base = await realpath(root);
    const place = resolve(files.location, path);
    if (!isWithin(files.location, place)) throw outside(`${name}/${path}`, root);
    const found = await realpath(place).catch(() => place);
    if (!isWithin(base, found)) throw outside(`${name}/${path}`, root);
  };
  return {
    ...files,
    async read(path, maxBytes) {
      await check(path);
      return files.read(path, maxBytes);
    },
    async list(under) {
      await check(under);
      const paths = await files.list(under);
      const base = await realpath(root);
      const real = await Promise.all(paths.map((path) => realpath(join(files.location, path)).catch(() => base)));
      return paths.filter((_, i) => isWithin(base, real[i]));
    },
  };
}

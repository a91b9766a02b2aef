import { FormatError, quote, UsageError } from "../../core/index.js";
import { checkSchema } from "../../core/internal.js";
import { isJsonObject } from "../../io/index.js";
import { decodeUtf8, parseYaml } from "../../io/internal.js";
import { pathBeside, type TaskFiles } from "../taskFiles.js";
import { functionTag, taskSchema } from "./schema.js";
import { compileTask, type TaskDefinition } from "./task.js";

const maxCharacters = 1_000_000;
const maxIncludes = 16;
const maxGroups = 8;
const maxTasks = 2000;

const isYaml = (path: string) => /\.ya?ml$/.test(path);
/** Task files, and those without an ending that they include (`_template_yaml`). */
const mayBeIncluded = (path: string) => isYaml(path) || /(?:^|\/)[^./]*ya?ml[^./]*$/.test(path);

/**
 * Reads tasks of files in the format of lm-evaluation-harness.
 * @param wanted paths of task files, folders of them, and names of tasks, groups and tags that files in the folder have
 * @throws FormatError with file and field; UsageError for what is not there
 */
export async function readTasks(files: TaskFiles, wanted: readonly string[]): Promise<TaskDefinition[]> {
  const reader = new TaskReader(files);
  for (const name of wanted) await reader.add(name);
  return [...reader.found.values()];
}

class TaskReader {
  readonly found = new Map<string, TaskDefinition>();
  /** The texts of all task files, read once. */
  #texts: Map<string, string> | undefined;

  constructor(readonly files: TaskFiles) {}

  async add(wanted: string, depth = 0): Promise<void> {
    const path = wanted.replace(/^\.\//, "").replace(/\/+$/, "");
    if (isYaml(path)) return this.#addFile(path, await this.#fields(path), depth);
    const folder = path === "." ? "" : path;
    const below = await this.files.list(folder);
    const paths = below.filter(isYaml);
    if (paths.length > 0) {
      for (const file of paths) {
        const fields = await this.#fields(file);
        // Others are there to be included.
        if (typeof fields.task === "string") await this.#addFile(file, fields, depth);
      }
      return;
    }
    if (!(await this.#addNamed(path, depth))) {
      throw new UsageError(
        `${quote(wanted)} is no task file or folder of them in ${this.files.location}, and no file there has a task, group or tag of that name`,
      );
    }
  }

  /** The task or group of a name, or the tasks with a tag. @returns whether there is any */
  async #addNamed(name: string, depth: number): Promise<boolean> {
    this.#texts ??= await this.#readAll();
    const tagged: [string, Record<string, unknown>][] = [];
    for (const path of this.#texts.keys()) {
      // Most files of a large collection never speak of it.
      if (!isYaml(path) || !this.#mentions(path, name)) continue;
      const fields = await this.#fields(path);
      if (fields.task === name || fields.group === name) {
        await this.#addFile(path, fields, depth);
        return true;
      }
      const tags = Array.isArray(fields.tag) ? fields.tag : [fields.tag];
      if (tags.includes(name) && typeof fields.task === "string") tagged.push([path, fields]);
    }
    for (const [path, fields] of tagged) await this.#addFile(path, fields, depth);
    return tagged.length > 0;
  }

  async #readAll(): Promise<Map<string, string>> {
    const texts = new Map<string, string>();
    for (const path of await this.files.list("")) if (mayBeIncluded(path)) texts.set(path, await this.#text(path));
    return texts;
  }

  /** Whether a name stands in a file or in what it includes. */
  #mentions(path: string, name: string, depth = 0): boolean {
    const text = this.#texts!.get(path);
    if (text === undefined || depth > maxIncludes) return false;
    if (text.includes(name)) return true;
    const [, included] = /^include:[ \t]*['"]?([^'"\n#]+?)['"]?[ \t]*$/m.exec(text) ?? [];
    if (included === undefined) return /^include:/m.test(text);
    return included.startsWith("[") || this.#mentions(pathBeside(path, included), name, depth + 1);
  }

  async #addFile(path: string, fields: Record<string, unknown>, depth: number): Promise<void> {
    const file = `${this.files.location}/${path}`;
    if (fields.group !== undefined) return this.#addGroup(file, fields, depth);
    const given = checkSchema(taskSchema, fields, file);
    const known = this.found.get(given.task);
    if (known?.file === file) return;
    if (known !== undefined) {
      throw new FormatError({
        file,
        field: "task",
        problem: `the name ${given.task} is that of the task in ${known.file} too`,
      });
    }
    if (this.found.size >= maxTasks) throw new UsageError(`more than ${maxTasks} tasks`);
    this.found.set(given.task, await compileTask(given, path, file));
  }

  /** Adds the members of a group; its own figures are not made. */
  async #addGroup(file: string, { task: members }: Record<string, unknown>, depth: number): Promise<void> {
    if (depth >= maxGroups)
      throw new FormatError({ file, field: "group", problem: "groups within each other too deep" });
    if (!Array.isArray(members) || !members.every((member) => typeof member === "string")) {
      throw new FormatError({
        file,
        field: "task",
        problem: "no list of names",
        expected: "names of tasks, groups or tags",
      });
    }
    for (const member of members) {
      if (!(await this.#addNamed(member, depth + 1))) {
        throw new FormatError({
          file,
          field: "task",
          problem: `${quote(member)} is no task, group or tag in the folder`,
        });
      }
    }
  }

  /** The fields of a file over those of what it includes; those that are null are left out. */
  async #fields(path: string, within: readonly string[] = []): Promise<Record<string, unknown>> {
    const file = `${this.files.location}/${path}`;
    if (within.includes(path) || within.length >= maxIncludes) {
      throw new FormatError({ file, field: "include", problem: "files that include each other" });
    }
    const raw = await parseYaml(await this.#text(path), file, { maxCharacters, version: "1.1", tags: [functionTag] });
    if (!isJsonObject(raw)) throw new FormatError({ file, problem: "no fields of a task" });
    const { include = [], ...own } = raw;
    const fields: Record<string, unknown> = {};
    for (const named of Array.isArray(include) ? include : [include]) {
      if (typeof named !== "string") throw new FormatError({ file, field: "include", problem: "no path of a file" });
      Object.assign(fields, await this.#fields(pathBeside(path, named), [...within, path]));
    }
    Object.assign(fields, own);
    return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null));
  }

  async #text(path: string): Promise<string> {
    const file = `${this.files.location}/${path}`;
    const bytes = await this.files.read(path, 4 * maxCharacters);
    if (bytes === undefined) throw new UsageError(`${file}: there is no such file`);
    return decodeUtf8(bytes, file);
  }
}

import type { Option } from "commander";
import type { OnProgress } from "../core/index.js";

/** Options that every command has. */
export interface CommonOptions {
  json?: boolean;
  quiet?: boolean;
  verbose?: boolean;
}

/** Styles for a text; they change nothing where colours are not wanted. */
export type Colors = Readonly<Record<"bold" | "dim" | "red", (text: string) => string>>;

/** What a command gets from the outside; it touches no global. */
export interface Context {
  /** Aborted by Ctrl-C. */
  readonly signal: AbortSignal;
  /** undefined with --quiet. */
  readonly onProgress: OnProgress | undefined;
  readonly json: boolean;
  /** Writes to stdout; nothing with --json, whose document is the command's return value. */
  print(text: string): void;
  /** Writes a line to stderr where that is a terminal and --quiet was not given: what only a person wants to know. */
  note(text: string): void;
  /** To the error output unless quiet, once: something in the user's files that is not as they may think. */
  warn(text: string): void;
  /** To the error output, quiet or not: what was asked for and is not done, although the command goes on. */
  complain(text: string): void;
  readonly colors: Colors;
  readonly stdin: NodeJS.ReadStream;
  readonly stdout: NodeJS.WriteStream;
}

/** A command as the list of commands shows it: one file in commands/, one line in commands/index.ts. */
export interface CommandEntry {
  name: string;
  /** One line, for the list of commands. */
  summary: string;
  load(): Promise<{ command: CommandDefinition }>;
}

/** What a command takes and does. */
export interface CommandDefinition<Options extends CommonOptions = CommonOptions> {
  /** The paragraph under `--help`. */
  description: string;
  /** Positional arguments in commander's syntax: ["MODEL", "what it is"]; "[MODEL]" may be missing. */
  arguments?: readonly (readonly [syntax: string, help: string])[];
  options: readonly Option[];
  /** Command lines that work as they stand, once the named model is there. */
  examples: readonly string[];
  /** @returns the document that --json prints. */
  run(context: Context, options: Options, args: readonly string[]): Promise<object>;
}

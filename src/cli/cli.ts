import { inspect, styleText } from "node:util";
import { CommanderError } from "commander";
import { RarefyError, UsageError } from "../core/index.js";
import type { Colors, CommandDefinition, CommandEntry, CommonOptions, Context } from "./command.js";
import { withFlags } from "./flags.js";
import { terminalText } from "./format.js";
import { createProgram } from "./program.js";
import { progressOn, silentProgress } from "./progress.js";

export interface CliEnvironment {
  stdin: NodeJS.ReadStream;
  stdout: NodeJS.WriteStream;
  stderr: NodeJS.WriteStream;
  signal: AbortSignal;
  version: string;
}

/** Exit codes. A run that a signal ended is given its code by main.ts. */
export const exitCodes = { ok: 0, failed: 1, usage: 2, aborted: 130 } as const;

/** Parses `argv` (without node and script), runs the command, reports its error. @returns the exit code. */
export async function runCli(
  commands: readonly CommandEntry[],
  argv: readonly string[],
  environment: CliEnvironment,
): Promise<number> {
  const { stdout, stderr, signal } = environment;
  const output = {
    out: (text: string) => void stdout.write(text),
    error: (text: string) => void stderr.write(text),
    // A terminal without a size says 0.
    width: Math.min(stdout.columns || 100, 120),
  };
  let verbose = false;
  try {
    const program = await createProgram(commands, argv, environment.version, output, async (command, options, args) => {
      verbose = options.verbose === true;
      await execute(command, options, args, environment);
    });
    await program.parseAsync(argv, { from: "user" });
    return exitCodes.ok;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
    if (signal.aborted) {
      // What can be gone on with says how.
      stderr.write(error instanceof RarefyError ? `Stopped. ${withFlags(error.message)}\n` : "Stopped.\n");
      return exitCodes.aborted;
    }
    stderr.write(`${colorsFor(stderr).red("error:")} ${explain(error, verbose)}\n`);
    return error instanceof UsageError ? exitCodes.usage : exitCodes.failed;
  }
}

async function execute(
  { run }: CommandDefinition,
  options: CommonOptions,
  args: readonly string[],
  { stdin, stdout, stderr, signal }: CliEnvironment,
): Promise<void> {
  const json = options.json === true;
  const progress = options.quiet ? silentProgress : progressOn(stderr, { json, term: process.env.TERM });
  const warned = new Set<string>();
  const context: Context = {
    signal,
    onProgress: options.quiet ? undefined : progress.show,
    json,
    print(text) {
      progress.clear();
      if (!json) stdout.write(text);
    },
    note(text) {
      progress.clear();
      if (stderr.isTTY && !options.quiet) stderr.write(`${colorsFor(stderr).dim(text)}\n`);
    },
    warn(text) {
      if (options.quiet || warned.has(text)) return;
      warned.add(text);
      progress.clear();
      stderr.write(`${colorsFor(stderr).bold("warning:")} ${terminalText(text)}\n`);
    },
    complain(text) {
      progress.clear();
      stderr.write(`${colorsFor(stderr).red("error:")} ${terminalText(text)}\n`);
    },
    colors: colorsFor(stdout),
    stdin,
    stdout,
  };
  try {
    const document = await run(context, options, args);
    if (json) stdout.write(`${JSON.stringify(document, null, 2)}\n`);
  } finally {
    progress.clear();
  }
}

/** Colours on a terminal only (https://no-color.org), decided per stream; `styleText` by itself would look at stdout for stderr as well. */
function colorsFor(stream: NodeJS.WriteStream): Colors {
  const coloured = stream.isTTY === true && process.env.TERM !== "dumb" && !process.env.NO_COLOR;
  const style = (format: keyof Colors) => (text: string) =>
    coloured ? styleText(format, text, { validateStream: false }) : text;
  return { bold: style("bold"), dim: style("dim"), red: style("red") };
}

/** One message: what went wrong, without a stack unless asked for. */
function explain(error: unknown, verbose: boolean): string {
  if (verbose) return terminalText(inspect(error));
  if (!(error instanceof Error)) return terminalText(String(error));
  const expected = error instanceof RarefyError || "syscall" in error;
  return terminalText(
    expected ? withFlags(error.message) : `${error.name}: ${error.message} (--verbose shows the stack)`,
  );
}

import { Command, Option } from "commander";
import type { CommandDefinition, CommandEntry, CommonOptions } from "./command.js";

/** Runs one chosen command with what was parsed. */
export type Execute = (definition: CommandDefinition, options: CommonOptions, args: readonly string[]) => Promise<void>;

export interface ProgramOutput {
  out(text: string): void;
  error(text: string): void;
  /** Columns to wrap help at. */
  width: number;
}

/**
 * The command line as commander sees it: parses, prints help, hands over to `execute`. Throws instead of exiting. Only the command
 * that `argv` names is loaded.
 */
export async function createProgram(
  entries: readonly CommandEntry[],
  argv: readonly string[],
  version: string,
  output: ProgramOutput,
  execute: Execute,
): Promise<Command> {
  const program = new Command("rarefy")
    .description("Make language models sparse, see what that costs, run them faster.")
    .usage("COMMAND [options]")
    .version(version, "-V, --version", "print the version");
  frame(program, output);
  program.helpCommand("help [command]", "print this help, or that of a command");
  program.addCommand(versionCommand(version, output));
  for (const entry of entries) {
    const command = new Command(entry.name).summary(entry.summary);
    frame(command, output);
    if (argv.includes(entry.name)) define(command, (await entry.load()).command, execute);
    program.addCommand(command);
  }
  program.addHelpText(
    "after",
    "\nMODEL is a directory in Hugging Face layout, a .gguf file or a Hub id: org/name or org/name@revision." +
      "\nRun 'rarefy COMMAND --help' for the options of a command and examples.",
  );
  return program;
}

/** Like `--version`; both are asked for. */
function versionCommand(version: string, output: ProgramOutput): Command {
  const command = new Command("version").summary("print the version").description("Prints the version.");
  frame(command, output);
  return command.action(() => output.out(`${version}\n`));
}

function define(command: Command, definition: CommandDefinition, execute: Execute): void {
  command.description(definition.description);
  for (const [syntax, help] of definition.arguments ?? []) {
    command.argument(syntax.startsWith("[") ? syntax : `<${syntax}>`, help);
  }
  for (const option of [...definition.options, ...commonOptions()]) command.addOption(option);
  const examples = definition.examples.map((line) => `  $ ${line}`).join("\n");
  command.addHelpText("after", `\nExamples:\n${examples}`);
  command.action(async () => {
    await execute(definition, command.opts(), command.args);
  });
}

const commonOptions = () => [
  new Option("--json", "print one JSON document on stdout instead of text"),
  new Option("--quiet", "no progress on stderr"),
  new Option("--verbose", "show the stack of an error"),
];

function frame(command: Command, { out, error, width }: ProgramOutput): void {
  command
    .exitOverride()
    .helpOption("-h, --help", "print this help")
    .helpCommand(false)
    .configureOutput({
      writeOut: out,
      writeErr: error,
      getOutHelpWidth: () => width,
      getErrHelpWidth: () => width,
      outputError: (text, write) => write(text),
    })
    .showHelpAfterError(false);
}

import { text as textOf } from "node:stream/consumers";
import { UsageError } from "../core/index.js";
import { readText } from "../io/index.node.js";
import type { Context } from "./command.js";

/** Where a prompt may come from. */
export interface PromptOptions {
  /** "-" is stdin. */
  prompt?: string;
  promptFile?: string;
}

/**
 * The prompt of the command line; the last line break of a file or of stdin is left out, since editors and `echo` add one.
 * @returns undefined where none was given
 */
export async function promptText({ stdin, signal }: Context, options: PromptOptions): Promise<string | undefined> {
  const { prompt, promptFile } = options;
  if (prompt !== undefined && promptFile !== undefined)
    throw new UsageError("give --prompt or --prompt-file, not both");
  if (prompt === "-" || promptFile === "-") return withoutLastLineBreak(await stdinText(stdin, signal));
  return promptFile === undefined ? prompt : withoutLastLineBreak(await readText(promptFile));
}

async function stdinText(stdin: NodeJS.ReadStream, signal: AbortSignal): Promise<string> {
  const stop = () => stdin.destroy();
  signal.addEventListener("abort", stop, { once: true });
  try {
    return await textOf(stdin);
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  } finally {
    signal.removeEventListener("abort", stop);
  }
}

const withoutLastLineBreak = (text: string) => text.replace(/\r?\n$/, "");

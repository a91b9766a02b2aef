import { Option } from "commander";
import { type Cloud, connectCloud } from "../runtime/index.js";
import type { Tokenizer } from "../text/index.js";
import type { Context } from "./command.js";

export interface CloudOptions {
  cloud?: string;
  cloudModel?: string;
}

/** Keys stand in the environment, which others on the machine cannot read off the command line. */
const keyVariable = "RAREFY_CLOUD_KEY";

export const cloudOptions = () => [
  new Option(
    "--cloud <url>",
    "let this model propose tokens, which a larger one of the same vocabulary verifies on a server (rarefy serve), as " +
      `http://127.0.0.1:8080/v1: the text is the server's. A key is read from ${keyVariable}`,
  ),
  new Option("--cloud-model <name>", "the server's name of that model (default: the one that it has)"),
];

/** The server that an option names. @throws what `connectCloud` throws */
export async function openCloud(
  { signal }: Context,
  { cloud: url, cloudModel: model }: CloudOptions,
  tokenizer: Tokenizer,
): Promise<Cloud | undefined> {
  if (url === undefined) return undefined;
  const key = process.env[keyVariable] || undefined;
  return connectCloud(url, { tokenizer, model, key, signal });
}

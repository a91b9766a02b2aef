import { Option } from "commander";
import { UsageError } from "../core/index.js";
import { readText } from "../io/index.node.js";
import type { Model } from "../model/index.js";
import {
  type Cloud,
  calibrateRoute,
  connectCloud,
  expectedTokenMs,
  type MemoryOptions,
  parseRoute,
  type Route,
  type Routing,
  routeRules,
} from "../runtime/index.js";
import { type Tokenizer, tokenizeText } from "../text/index.js";
import type { Context } from "./command.js";
import { digits, percent } from "./format.js";
import { choices, chosenBy } from "./options.js";

export interface CloudOptions {
  cloud?: string;
  cloudModel?: string;
  route?: Route;
  routeText?: string;
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
  new Option(
    "--route <rule>",
    `with --cloud: ask the server only for some tokens, or texts, and write the others here; ${choices(routeRules)}`,
  ).argParser(chosenBy(parseRoute)),
  new Option("--route-text <file>", "UTF-8 text on which the threshold of a budget is found"),
];

/** The rule with its threshold. @throws UsageError for a budget without a text, or a rule without a server */
export async function openRoute(
  { signal, onProgress, note }: Context,
  { cloud, route, routeText }: CloudOptions,
  model: Model,
  tokenizer: Tokenizer,
  memory: MemoryOptions,
): Promise<Route | undefined> {
  if (routeText !== undefined && route?.budget === undefined)
    throw new UsageError("--route-text serves to find the threshold of a budget: give --route with budget=");
  if (route === undefined) return undefined;
  if (cloud === undefined) throw new UsageError("--route leaves tokens to a server: give its address with --cloud");
  if (route.budget === undefined) return route;
  if (routeText === undefined)
    throw new UsageError(`${route.text}: give a text with --route-text on which the threshold is found, or threshold=`);
  const { tokens } = await tokenizeText(tokenizer, await readText(routeText), {
    maxTokens: 4096,
    name: routeText,
    signal,
  });
  const window = Math.min(Math.max(256, route.span ?? 1), tokens.length);
  const found = await calibrateRoute(model, route, tokens, { window, ...memory, signal, onProgress });
  const side = found.least! < 0 ? "above" : "below";
  note(`${route.text}: ${side} ${digits(Math.abs(found.least!), 4)} on ${tokens.length} tokens of ${routeText}`);
  return found;
}

/** What was asked of the server, and what the formula makes of the times. */
export function describeRouting({
  tokens,
  routed,
  asked,
  caughtUp,
  openMs,
  edgeMs,
  cloudMs,
  networkMs,
}: Routing): string {
  const share = percent(tokens === 0 ? 0 : routed / tokens, 1);
  const text = `${routed} of ${tokens} tokens (${share}) came from the server`;
  if (asked === 0 || edgeMs === 0) return text;
  const times = {
    edgeMs: edgeMs / Math.max(1, tokens - 1),
    askedShare: asked / Math.max(1, tokens - 1),
    roundTripMs: networkMs / asked,
    serverMs: (cloudMs - networkMs) / asked,
    openShareMs: openMs / Math.max(1, tokens - 1),
  };
  return (
    `${text}, which ran ${digits(caughtUp / asked, 2)} at a time; ${digits(1000 / expectedTokenMs(times), 3)} tokens/s expected with ` +
    `${digits(times.edgeMs, 2)} ms a token here, ${digits(times.serverMs, 2)} there, ${digits(times.roundTripMs, 2)} on the way`
  );
}

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

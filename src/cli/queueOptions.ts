import { existsSync } from "node:fs";
import { Option } from "commander";
import { quote, UsageError } from "../core/index.js";
import { isBundledModel, isBundledText } from "../io/index.node.js";
import { jobPath } from "../jobs/index.js";
import { embeddedModel, embeddedName } from "./embedded.js";

/** @param use what the queue is for in this command */
export const queueOption = (use: string) =>
  new Option(
    "--queue <url>",
    `redis://[user:password@]host:port, or rediss://; ${use}. Needs the npm packages bullmq and ioredis`,
  );

/** Under which name workers find a model. @throws UsageError for one that they cannot find */
export function queueModel(model: string): string {
  if (model === embeddedModel) return embeddedName;
  if (existsSync(model)) return jobPath(model);
  if (isBundledModel(model)) return model;
  throw new UsageError(`${quote(model)}: with --queue, MODEL is a folder or a GGUF file below the current directory`);
}

/** Under which name workers find a text. @throws UsageError for one that they cannot find */
export const queueText = (text: string): string => (isBundledText(text) ? text : jobPath(text));

/**
 * What workers do not do.
 * @param options those that cannot be had beside --queue, by their flags
 * @throws UsageError
 */
export function refuseWithQueue(options: Record<string, unknown>): void {
  const asked = Object.entries(options).find(([, value]) => value !== undefined);
  if (asked !== undefined) throw new UsageError(`--${asked[0]} cannot be had with --queue; leave one of them out`);
}

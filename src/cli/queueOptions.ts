import { existsSync } from "node:fs";
import { Option } from "commander";
import { quote, UsageError } from "../core/index.js";
import { isBundledModel, isBundledText } from "../io/index.node.js";
import { jobPath } from "../jobs/index.js";

/** @param use what the queue is for in this command */
export const queueOption = (use: string) =>
  new Option(
    "--queue <url>",
    `redis://[user:password@]host:port, or rediss://; ${use}. Needs the npm packages bullmq and ioredis`,
  );

/** Under which names workers find what a sweep is made from. @throws UsageError for what they cannot find */
export function queuePlaces(
  model: string,
  { text, calib }: { text?: string; calib?: string },
): { model: string; text: string; calib?: string } {
  const textPlace = (name: string) => (isBundledText(name) ? name : jobPath(name));
  if (!existsSync(model) && !isBundledModel(model)) {
    throw new UsageError(`${quote(model)}: with --queue, MODEL is a folder or a GGUF file below the current directory`);
  }
  return {
    model: existsSync(model) ? jobPath(model) : model,
    text: textPlace(text!),
    calib: calib === undefined ? undefined : textPlace(calib),
  };
}

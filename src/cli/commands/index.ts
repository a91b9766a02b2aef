import type { CommandDefinition } from "../command.js";
import { inspectCommand } from "./inspect.js";

/** Every command, in the order in which help lists them. */
export const commands: readonly CommandDefinition[] = [inspectCommand];

import type { Convention } from "../eval/index.js";
import type { PrefillPolicy } from "../runtime/index.js";
import type { CommonOptions } from "./command.js";
import type { AdapterOption } from "./options.js";
import type { ComparisonOptions } from "./session.js";
import type { TaskCommandOptions } from "./taskOptions.js";
import type { TaskOutputOptions } from "./taskOutput.js";

/** What `rarefy eval` is asked. */
export interface EvalOptions
  extends CommonOptions,
    ComparisonOptions,
    AdapterOption,
    TaskCommandOptions,
    TaskOutputOptions {
  text?: string;
  window: number;
  promptTokens?: number;
  maxWindows?: number;
  bos?: boolean;
  convention?: Convention;
  stride?: number;
  against?: string;
  prefill: PrefillPolicy;
  experts?: boolean;
  queue?: string;
}

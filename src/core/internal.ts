/** For the folders to the right: what options, data and messages are checked and written with. Not part of the package's exports. */
export { checkOptions, type OptionRule, type OptionRules, optionRules } from "./checkOptions.js";
export { cleaned, clip } from "./quote.js";
export { checkSchema, parseSchema } from "./schema.js";

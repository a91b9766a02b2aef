/** For the folders to the right: what options and messages are checked and written with. Not part of the package's exports. */
export { checkOptions, type OptionRule, type OptionRules, optionRules } from "./checkOptions.js";
export { cleaned, clip } from "./quote.js";

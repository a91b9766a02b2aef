/** For the folders to the right: how a window of a text begins, and templates that files of tasks have. Not part of the package's exports. */

export { compileTemplate, parseLiteral, type Template, type TemplatePlace } from "./template.js";
export { beginToken, beginWindows, tokensOfText } from "./tokenizedText.js";

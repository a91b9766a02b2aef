/**
 * Jinja as chat templates use it, with the values, printing and limits of Python where another language would give another
 * text. It is our own because a template is a file from anywhere: it is read in one pass, every operation is counted before
 * it is done, and what is not supported is an error and never another text.
 */
export { type RenderSettings, render } from "./interpreter.js";
export { literal } from "./literal.js";
export { parse } from "./parser.js";
export { Callable, fromJs, TemplateError, toText, type Value } from "./values.js";

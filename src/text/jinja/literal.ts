import type { Expression } from "./ast.js";
import { parse } from "./parser.js";
import { Float, TemplateError, tupleOf, type Value } from "./values.js";

const maxCharacters = 2 ** 20;

/**
 * The value of a text that is a literal of Python: texts, numbers, lists, tuples and dictionaries of them.
 * @throws TemplateError for anything else
 */
export function literal(text: string): Value {
  if (text.length > maxCharacters) throw new TemplateError(`a value of ${text.length} characters`);
  const [statement, ...more] = parse(`{{ ${text} }}`, { trim: false });
  if (statement?.type !== "print" || more.length > 0) throw new TemplateError("no value");
  return constant(statement.value);
}

function constant(expression: Expression): Value {
  switch (expression.type) {
    case "literal":
      return expression.value;
    case "float":
      return new Float(expression.value);
    case "list":
      return expression.items.map(constant);
    case "tuple":
      return tupleOf(...expression.items.map(constant));
    case "dict":
      return new Map(expression.entries.map(([key, value]) => [constant(key), constant(value)]));
    case "negative": {
      const value = constant(expression.of);
      if (value instanceof Float) return new Float(-value.value);
      if (typeof value === "number") return -value;
      break;
    }
  }
  throw new TemplateError(`${expression.type} in a value`);
}

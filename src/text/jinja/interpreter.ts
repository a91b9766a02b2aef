import { Given } from "./arguments.js";
import type { CallArguments, CallExpression, Expression, Parameter, Statement, Target } from "./ast.js";
import { filter } from "./filters.js";
import { methodOf } from "./methods.js";
import { binary, compared, slice } from "./operators.js";
import { test } from "./tests.js";
import {
  type Arguments,
  Callable,
  Float,
  isDict,
  isList,
  isNumber,
  isPlain,
  itemsOf,
  Namespace,
  numberOf,
  TemplateError,
  toText,
  truthy,
  tupleOf,
  typeName,
  Undefined,
  type Value,
} from "./values.js";
import { Work } from "./work.js";

/** Names and their values, with those around them. */
class Scope {
  readonly #values = new Map<string, Value>();

  constructor(readonly outer?: Scope) {}

  get(name: string): Value {
    for (let scope: Scope | undefined = this; scope !== undefined; scope = scope.outer) {
      const value = scope.#values.get(name);
      if (value !== undefined) return value;
    }
    return new Undefined(name);
  }

  set(name: string, value: Value): void {
    this.#values.set(name, value);
  }
}

/** How a loop is left before its end. */
type Leave = "break" | "continue" | undefined;

/** How a template is run. */
export interface RenderSettings {
  /** Whether a value that is not there may be tested and replaced only, and ends the template otherwise. Default false. */
  strict?: boolean;
}

/** Runs a parsed template. @throws TemplateError when it stops, or does more than a template may */
export function render(
  template: readonly Statement[],
  globals: ReadonlyMap<string, Value>,
  { strict = false }: RenderSettings = {},
): string {
  const interpreter = new Interpreter(strict);
  const scope = new Scope();
  for (const [name, value] of interpreter.globals) scope.set(name, value);
  for (const [name, value] of globals) scope.set(name, value);
  const output: string[] = [];
  if (interpreter.run(template, new Scope(scope), output) !== undefined)
    throw new TemplateError("break outside a loop");
  return output.join("");
}

/** Filters that are for values that are not there. */
const presetFilters = new Set(["default", "d"]);

class Interpreter {
  readonly work = new Work();

  constructor(readonly strict: boolean) {}

  readonly globals: readonly (readonly [string, Callable])[] = [
    ["range", new Callable("range", (given) => this.#range(given))],
    ["dict", new Callable("dict", ({ named }) => new Map(named))],
    ["namespace", new Callable("namespace", ({ args, named }) => namespaceOf(args, named))],
  ];

  run(statements: readonly Statement[], scope: Scope, output: string[]): Leave {
    for (const statement of statements) {
      this.work.node();
      const leave = this.#statement(statement, scope, output);
      if (leave !== undefined) return leave;
    }
    return undefined;
  }

  /** A value that is looked at. */
  #present(value: Value): Value {
    if (this.strict && value instanceof Undefined) throw new TemplateError(`${value.name} is not there`);
    return value;
  }

  #print(text: string, output: string[]): void {
    this.work.print(text.length);
    output.push(text);
  }

  /** What statements print, as a text. */
  #captured(statements: readonly Statement[], scope: Scope): string {
    const output: string[] = [];
    if (this.run(statements, scope, output) !== undefined) throw new TemplateError("break outside a loop");
    return output.join("");
  }

  #statement(statement: Statement, scope: Scope, output: string[]): Leave {
    switch (statement.type) {
      case "text":
        this.#print(statement.text, output);
        return undefined;
      case "print":
        this.#print(this.work.made(toText(this.#present(this.evaluate(statement.value, scope)))), output);
        return undefined;
      case "if": {
        const holds = (test: Expression) => truthy(this.#present(this.evaluate(test, scope)));
        const branch = statement.branches.find(({ test }) => test === undefined || holds(test));
        return branch && this.run(branch.body, scope, output);
      }
      case "for":
        return this.#for(statement, scope, output);
      case "set":
        this.#assign(statement.target, this.evaluate(statement.value, scope), scope);
        return undefined;
      case "setBlock":
      case "filterBlock": {
        const text = statement.filters.reduce<Value>(
          (value, { name, given }) => this.#filter(name, value, given, scope),
          this.#captured(statement.body, new Scope(scope)),
        );
        if (statement.type === "setBlock") this.#assign(statement.target, text, scope);
        else this.#print(toText(text), output);
        return undefined;
      }
      case "with": {
        const inner = new Scope(scope);
        for (const [name, value] of statement.values) inner.set(name, this.evaluate(value, scope));
        return this.run(statement.body, inner, output);
      }
      case "block":
        return this.run(statement.body, scope, output);
      case "macro":
        scope.set(statement.name, this.#macro(statement.name, statement.parameters, statement.body, scope));
        return undefined;
      case "callBlock": {
        const caller = this.#macro("caller", statement.parameters, statement.body, scope);
        this.#print(toText(this.#call(statement.call, scope, caller)), output);
        return undefined;
      }
      case "break":
      case "continue":
        return statement.type;
    }
  }

  #for(statement: Statement & { type: "for" }, scope: Scope, output: string[], given?: Value): Leave {
    const { target, filter: condition, body, otherwise, recursive } = statement;
    let items = itemsOf(this.#present(given ?? this.evaluate(statement.items, scope)));
    if (condition !== undefined) {
      items = items.filter((item) => {
        const inner = new Scope(scope);
        this.#assign(target, item, inner);
        return truthy(this.evaluate(condition, inner));
      });
    }
    if (items.length === 0) return this.run(otherwise, new Scope(scope), output);
    let changed: readonly Value[] | undefined;
    const cycle = new Callable("cycle", ({ args }) => args[at % args.length] ?? new Undefined("cycle of nothing"));
    const changing = new Callable("changed", ({ args }) => {
      const same = changed !== undefined && compared("==", [...changed], [...args], this.work);
      changed = args;
      return !same;
    });
    const again = (given: Arguments): Value => {
      if (!recursive) throw new TemplateError("the loop is not recursive");
      return this.work.call(() => {
        const inner: string[] = [];
        this.#for(statement, scope, inner, given.args[0] ?? null);
        return inner.join("");
      });
    };
    let at = 0;
    for (; at < items.length; at++) {
      this.work.turn();
      const inner = new Scope(scope);
      const fields: [string, Value][] = [
        ["index", at + 1],
        ["index0", at],
        ["revindex", items.length - at],
        ["revindex0", items.length - at - 1],
        ["first", at === 0],
        ["last", at === items.length - 1],
        ["length", items.length],
        ["previtem", items[at - 1] ?? new Undefined("the item before the first")],
        ["nextitem", items[at + 1] ?? new Undefined("the item after the last")],
        ["cycle", cycle],
        ["changed", changing],
      ];
      inner.set("loop", new Callable("loop", again, new Map(fields)));
      this.#assign(target, items[at], inner);
      if (this.run(body, inner, output) === "break") break;
    }
    return undefined;
  }

  #assign(target: Target, value: Value, scope: Scope): void {
    if (target.type === "name") scope.set(target.name, value);
    else if (target.type === "attribute") {
      const space = scope.get(target.of);
      if (!(space instanceof Namespace)) throw new TemplateError(`${target.of} is no namespace, and cannot be changed`);
      space.fields.set(target.name, value);
    } else {
      const items = itemsOf(value);
      if (items.length !== target.items.length) {
        throw new TemplateError(`${items.length} values for ${target.items.length} names`);
      }
      for (const [i, each] of target.items.entries()) this.#assign(each, items[i], scope);
    }
  }

  #macro(name: string, parameters: readonly Parameter[], body: readonly Statement[], outer: Scope): Callable {
    return new Callable(name, ({ args, named }) =>
      this.work.call(() => {
        const scope = new Scope(outer);
        const known = new Set(parameters.map((parameter) => parameter.name));
        for (const [i, parameter] of parameters.entries()) {
          const given = args[i] ?? named.get(parameter.name);
          const preset = parameter.preset;
          scope.set(
            parameter.name,
            given ?? (preset === undefined ? new Undefined(parameter.name) : this.evaluate(preset, scope)),
          );
        }
        scope.set("varargs", tupleOf(...args.slice(parameters.length)));
        scope.set("kwargs", new Map(Array.from(named).filter(([key]) => !known.has(key) && key !== "caller")));
        const caller = named.get("caller");
        if (caller !== undefined) scope.set("caller", caller);
        return this.#captured(body, scope);
      }),
    );
  }

  evaluate(expression: Expression, scope: Scope): Value {
    this.work.node();
    switch (expression.type) {
      case "literal":
        return expression.value;
      case "float":
        return new Float(expression.value);
      case "name":
        return scope.get(expression.name);
      case "list":
        return expression.items.map((item) => this.evaluate(item, scope));
      case "tuple":
        return tupleOf(...expression.items.map((item) => this.evaluate(item, scope)));
      case "dict":
        return new Map(
          expression.entries.map(([key, value]) => [this.evaluate(key, scope), this.evaluate(value, scope)]),
        );
      case "attribute":
        return this.attribute(this.evaluate(expression.of, scope), expression.name);
      case "item":
        return this.#item(this.evaluate(expression.of, scope), this.evaluate(expression.key, scope));
      case "slice": {
        const bounds = expression.bounds.map((bound) => bound && this.evaluate(bound, scope));
        return slice(this.evaluate(expression.of, scope), bounds, this.work);
      }
      case "call":
        return this.#call(expression, scope);
      case "filter":
        return this.#filter(expression.name, this.evaluate(expression.of, scope), expression.given, scope);
      case "test": {
        const value = this.evaluate(expression.of, scope);
        const { args } = this.#arguments(expression.given, scope);
        return test(expression.name, value, args, this.work) !== expression.negated;
      }
      case "binary": {
        const left = this.evaluate(expression.left, scope);
        return binary(expression.operator, left, this.evaluate(expression.right, scope), this.work);
      }
      case "compare": {
        let left = this.evaluate(expression.first, scope);
        return expression.rest.every(([operator, operand]) => {
          const right = this.evaluate(operand, scope);
          const holds = compared(operator, left, right, this.work);
          left = right;
          return holds;
        });
      }
      case "and": {
        const left = this.evaluate(expression.left, scope);
        return truthy(left) ? this.evaluate(expression.right, scope) : left;
      }
      case "or": {
        const left = this.evaluate(expression.left, scope);
        return truthy(left) ? left : this.evaluate(expression.right, scope);
      }
      case "not":
        return !truthy(this.evaluate(expression.of, scope));
      case "negative":
      case "positive": {
        const value = this.evaluate(expression.of, scope);
        if (!isNumber(value)) throw new TemplateError(`the ${expression.type} of a ${typeName(value)}`);
        const sign = expression.type === "negative" ? -1 : 1;
        return value instanceof Float ? new Float(sign * value.value) : sign * numberOf(value);
      }
      case "condition": {
        if (truthy(this.evaluate(expression.test, scope))) return this.evaluate(expression.value, scope);
        return expression.otherwise === undefined
          ? new Undefined("nothing")
          : this.evaluate(expression.otherwise, scope);
      }
    }
  }

  /** `of.name`: a method or field before an entry of a dictionary. */
  attribute(of: Value, name: string): Value {
    if (of instanceof Undefined) throw new TemplateError(`${of.name} is not there, so it has no ${name}`);
    if (of instanceof Namespace) return of.fields.get(name) ?? new Undefined(name);
    if (of instanceof Callable) return of.fields?.get(name) ?? new Undefined(name);
    return methodOf(of, name, this.work) ?? (isDict(of) ? of.get(name) : undefined) ?? new Undefined(name);
  }

  /** `of[key]`: an entry before a method. */
  #item(of: Value, key: Value): Value {
    if (of instanceof Undefined) throw new TemplateError(`${of.name} is not there, so it has no ${toText(key)}`);
    if (isDict(of)) {
      const value = of.get(key instanceof Float ? key.value : key);
      if (value !== undefined) return value;
    } else if ((isList(of) || typeof of === "string") && typeof key === "number") {
      if (typeof of === "string") this.work.spend(of.length);
      const items = typeof of === "string" && isPlain(of) ? of : itemsOf(of);
      return items.at(key) ?? new Undefined(`item ${key}`);
    }
    return typeof key === "string" ? this.attribute(of, key) : new Undefined(`item ${toText(key)}`);
  }

  #filter(name: string, value: Value, given: CallArguments, scope: Scope): Value {
    const input = presetFilters.has(name) ? value : this.#present(value);
    return filter(name, input, this.#arguments(given, scope), this);
  }

  #call(expression: CallExpression, scope: Scope, caller?: Callable): Value {
    const callee = this.evaluate(expression.callee, scope);
    if (callee instanceof Undefined) throw new TemplateError(`${callee.name} is not there, and cannot be called`);
    if (!(callee instanceof Callable)) throw new TemplateError(`a ${typeName(callee)} cannot be called`);
    const { args, named } = this.#arguments(expression.given, scope);
    return callee.call({ args, named: caller === undefined ? named : new Map([...named, ["caller", caller]]) });
  }

  #arguments(given: CallArguments, scope: Scope): Arguments {
    const args = given.args.map((argument) => this.evaluate(argument, scope));
    if (given.rest !== undefined) args.push(...this.work.made(itemsOf(this.evaluate(given.rest, scope))));
    const named = new Map(given.named.map(([name, value]) => [name, this.evaluate(value, scope)]));
    const more = given.namedRest && this.evaluate(given.namedRest, scope);
    if (more !== undefined) {
      if (!isDict(more)) throw new TemplateError(`** of a ${typeName(more)}`);
      for (const [name, value] of more) named.set(toText(name), value);
    }
    return { args, named };
  }

  /** Python's `range`. */
  #range(given: Arguments): Value {
    const read = new Given("range", given, ["start", "stop", "step"]);
    const [from, to] = read.has("stop") ? [read.integer("start"), read.integer("stop")] : [0, read.integer("start")];
    const step = read.integer("step", 1);
    if (step === 0) throw new TemplateError("a range of step 0");
    const count = Math.max(0, Math.ceil((to - from) / step));
    this.work.room(count, "items");
    return Array.from({ length: count }, (_, i) => from + i * step);
  }
}

function namespaceOf(args: readonly Value[], named: ReadonlyMap<string, Value>): Namespace {
  const fields = new Map<string, Value>();
  for (const dict of args) if (isDict(dict)) for (const [name, value] of dict) fields.set(toText(name), value);
  for (const [name, value] of named) fields.set(name, value);
  return new Namespace(fields);
}

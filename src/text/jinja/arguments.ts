import { type Arguments, Float, isNumber, numberOf, TemplateError, toText, typeName, type Value } from "./values.js";

/** Reads what a filter, a test or a method was given, by place or by name. */
export class Given {
  constructor(
    readonly of: string,
    readonly given: Arguments,
    readonly names: readonly string[],
  ) {
    if (given.args.length > names.length) throw new TemplateError(`${of} takes ${names.length} arguments at most`);
    for (const name of given.named.keys()) {
      if (!names.includes(name)) throw new TemplateError(`${of} does not know ${name}=`);
    }
  }

  get(name: string): Value | undefined {
    return this.given.named.get(name) ?? this.given.args[this.names.indexOf(name)];
  }

  has(name: string): boolean {
    return this.get(name) !== undefined;
  }

  need(name: string): Value {
    const value = this.get(name);
    if (value === undefined) throw new TemplateError(`${this.of} needs ${name}`);
    return value;
  }

  text(name: string, preset?: string): string {
    const value = this.get(name) ?? preset;
    if (value === undefined) throw new TemplateError(`${this.of} needs ${name}`);
    if (typeof value !== "string") throw new TemplateError(`${name} of ${this.of} is a ${typeName(value)}, not a text`);
    return value;
  }

  /** Printed as a template would print it. */
  printed(name: string, preset?: string): string {
    const value = this.get(name) ?? preset;
    if (value === undefined) throw new TemplateError(`${this.of} needs ${name}`);
    return toText(value);
  }

  integer(name: string, preset?: number): number {
    const value = this.get(name) ?? preset;
    if (value === undefined) throw new TemplateError(`${this.of} needs ${name}`);
    if (isNumber(value) && !(value instanceof Float)) return numberOf(value);
    throw new TemplateError(`${name} of ${this.of} is a ${typeName(value)}, not a whole number`);
  }

  integerOrNone(name: string): number | undefined {
    const value = this.get(name);
    return value === undefined || value === null ? undefined : this.integer(name);
  }

  boolean(name: string, preset: boolean): boolean {
    const value = this.get(name);
    return value === undefined ? preset : Boolean(value);
  }
}

import type { CallArguments, Expression, FilterUse } from "./ast.js";
import type { Token } from "./lexer.js";
import { TemplateError } from "./values.js";

/** Tags, brackets and operators inside each other. */
const maxDepth = 200;
const comparisons = ["==", "!=", "<", "<=", ">", ">=", "in"];
const constants = new Map<string, null | boolean>([
  ["true", true],
  ["True", true],
  ["false", false],
  ["False", false],
  ["none", null],
  ["None", null],
]);
const noArguments: CallArguments = { args: [], named: [] };

/** Expressions by recursive descent, in the order of Jinja's precedences. */
export class ExpressionParser {
  #at = 0;
  #depth = 0;

  constructor(readonly tokens: readonly Token[]) {}

  protected fail(problem: string): TemplateError {
    const token = this.tokens[Math.min(this.#at, this.tokens.length - 1)];
    return new TemplateError(`line ${token?.line ?? 1}: ${problem}`);
  }

  protected take(): Token | undefined {
    return this.tokens[this.#at++];
  }

  /** Whether the next token is that operator, word or end of a tag. */
  protected at(value: string): boolean {
    const token = this.tokens[this.#at];
    return token !== undefined && token.type !== "string" && token.type !== "text" && token.value === value;
  }

  protected skip(value: string): boolean {
    const found = this.at(value);
    if (found) this.#at++;
    return found;
  }

  protected expect(value: string): void {
    if (this.skip(value)) return;
    const token = this.tokens[this.#at];
    throw this.fail(`${JSON.stringify(token?.value.slice(0, 40) ?? "the end")} where ${value} is expected`);
  }

  protected name(): string {
    const token = this.take();
    if (token?.type === "name") return token.value;
    this.#at--;
    throw this.fail(`${JSON.stringify(token?.value.slice(0, 40) ?? "the end")} where a name is expected`);
  }

  protected end(): void {
    const token = this.take();
    if (token?.type === "end") return;
    this.#at--;
    throw this.fail(`${JSON.stringify(token?.value.slice(0, 40) ?? "the end")} where the tag should end`);
  }

  protected nested<T>(read: () => T): T {
    if (++this.#depth > maxDepth) throw this.fail(`more than ${maxDepth} levels inside each other`);
    const result = read();
    this.#depth--;
    return result;
  }

  /** One expression, or a tuple of several with commas between them. */
  protected tuple({ condition = true } = {}): Expression {
    const one = () => (condition ? this.expression() : this.#or());
    const first = one();
    if (!this.at(",")) return first;
    const items = [first];
    while (this.skip(",")) {
      if (this.tokens[this.#at]?.type === "end" || this.at(")")) break;
      items.push(one());
    }
    return { type: "tuple", items };
  }

  protected expression(): Expression {
    return this.nested(() => {
      let value = this.#or();
      while (this.skip("if")) {
        const test = this.#or();
        value = { type: "condition", test, value, ...(this.skip("else") && { otherwise: this.expression() }) };
      }
      return value;
    });
  }

  #or(): Expression {
    let left = this.#and();
    while (this.skip("or")) left = { type: "or", left, right: this.#and() };
    return left;
  }

  #and(): Expression {
    let left = this.#not();
    while (this.skip("and")) left = { type: "and", left, right: this.#not() };
    return left;
  }

  #not(): Expression {
    return this.skip("not") ? { type: "not", of: this.nested(() => this.#not()) } : this.#compare();
  }

  #compare(): Expression {
    const first = this.#sum();
    const rest: [string, Expression][] = [];
    for (;;) {
      const operator = comparisons.find((each) => this.at(each)) ?? (this.at("not") ? "not in" : undefined);
      if (operator === undefined) break;
      this.#at++;
      if (operator === "not in") this.expect("in");
      rest.push([operator, this.#sum()]);
    }
    return rest.length === 0 ? first : { type: "compare", first, rest };
  }

  /** Operators of one precedence, from left to right. */
  #binary(operators: readonly string[], operand: () => Expression): Expression {
    let left = operand();
    for (;;) {
      const operator = operators.find((each) => this.at(each));
      if (operator === undefined) return left;
      this.#at++;
      left = { type: "binary", operator, left, right: operand() };
    }
  }

  #sum(): Expression {
    return this.#binary(["+", "-"], () => this.#binary(["~"], () => this.#product()));
  }

  #product(): Expression {
    return this.#binary(["*", "/", "//", "%"], () => this.#binary(["**"], () => this.#unary(true)));
  }

  #unary(filtered: boolean): Expression {
    let value: Expression;
    if (this.skip("-")) value = { type: "negative", of: this.nested(() => this.#unary(false)) };
    else if (this.skip("+")) value = { type: "positive", of: this.nested(() => this.#unary(false)) };
    else value = this.#primary();
    value = this.#postfix(value);
    return filtered ? this.#filtered(value) : value;
  }

  #primary(): Expression {
    const token = this.take();
    switch (token?.type) {
      case "name":
        return constants.has(token.value)
          ? { type: "literal", value: constants.get(token.value)! }
          : { type: "name", name: token.value };
      case "string": {
        let value = token.value;
        while (this.tokens[this.#at]?.type === "string") value += this.take()!.value;
        return { type: "literal", value };
      }
      case "integer":
        return { type: "literal", value: Number(token.value.replaceAll("_", "")) };
      case "float":
        return { type: "float", value: Number(token.value.replaceAll("_", "")) };
      case "operator":
        if (token.value === "(") return this.nested(() => this.#parentheses());
        if (token.value === "[") return { type: "list", items: this.nested(() => this.#list("]")) };
        if (token.value === "{") return this.nested(() => this.#dict());
    }
    this.#at--;
    throw this.fail(`${JSON.stringify(token?.value.slice(0, 40) ?? "the end")} where a value is expected`);
  }

  #parentheses(): Expression {
    if (this.skip(")")) return { type: "tuple", items: [] };
    const value = this.tuple();
    this.expect(")");
    return value;
  }

  #list(close: string): Expression[] {
    const items: Expression[] = [];
    while (!this.skip(close)) {
      if (items.length > 0) {
        this.expect(",");
        if (this.skip(close)) break;
      }
      items.push(this.expression());
    }
    return items;
  }

  #dict(): Expression {
    const entries: [Expression, Expression][] = [];
    while (!this.skip("}")) {
      if (entries.length > 0) {
        this.expect(",");
        if (this.skip("}")) break;
      }
      const key = this.expression();
      this.expect(":");
      entries.push([key, this.expression()]);
    }
    return { type: "dict", entries };
  }

  #postfix(start: Expression): Expression {
    let value = start;
    for (;;) {
      if (this.skip(".")) {
        const token = this.take();
        if (token?.type === "integer") {
          value = { type: "item", of: value, key: { type: "literal", value: Number(token.value) } };
        } else {
          this.#at--;
          value = { type: "attribute", of: value, name: this.name() };
        }
      } else if (this.skip("[")) value = this.nested(() => this.#subscript(value));
      else if (this.at("(")) value = { type: "call", callee: value, given: this.#arguments() };
      else return value;
    }
  }

  #subscript(of: Expression): Expression {
    const bounds: (Expression | undefined)[] = [];
    for (;;) {
      bounds.push(this.at(":") || this.at("]") ? undefined : this.tuple());
      if (!this.skip(":")) break;
    }
    this.expect("]");
    if (bounds.length > 3) throw this.fail("a slice of more than three parts");
    if (bounds.length > 1) return { type: "slice", of, bounds };
    if (bounds[0] === undefined) throw this.fail("[] without a key");
    return { type: "item", of, key: bounds[0] };
  }

  #arguments(): CallArguments {
    return this.nested(() => {
      this.expect("(");
      const args: Expression[] = [];
      const named: [string, Expression][] = [];
      let [rest, namedRest]: (Expression | undefined)[] = [];
      for (let first = true; !this.skip(")"); first = false) {
        if (!first) {
          this.expect(",");
          if (this.skip(")")) break;
        }
        const next = this.tokens[this.#at + 1];
        if (this.skip("**")) namedRest = this.expression();
        else if (this.skip("*")) rest = this.expression();
        else if (this.tokens[this.#at]?.type === "name" && next?.type === "operator" && next.value === "=") {
          const name = this.name();
          this.expect("=");
          named.push([name, this.expression()]);
        } else args.push(this.expression());
      }
      return { args, named, ...(rest && { rest }), ...(namedRest && { namedRest }) };
    });
  }

  #filtered(start: Expression): Expression {
    let value = start;
    for (;;) {
      if (this.skip("|")) value = { type: "filter", of: value, ...this.filterUse() };
      else if (this.skip("is")) value = this.#test(value);
      // A call of what a filter gives.
      else if (this.at("(")) value = { type: "call", callee: value, given: this.#arguments() };
      else return value;
    }
  }

  protected filterUse(): FilterUse {
    const name = this.name();
    return { name, given: this.at("(") ? this.#arguments() : noArguments };
  }

  #test(of: Expression): Expression {
    const negated = this.skip("not");
    const name = this.name();
    let given = noArguments;
    const token = this.tokens[this.#at];
    if (this.at("(")) given = this.#arguments();
    else if (
      token !== undefined &&
      (["string", "integer", "float"].includes(token.type) ||
        (token.type === "operator" && ["[", "{"].includes(token.value)) ||
        (token.type === "name" && !["else", "or", "and", "is", "if", "not", "in", "recursive"].includes(token.value)))
    ) {
      given = { args: [this.#postfix(this.#primary())], named: [] };
    }
    return { type: "test", of, name, given, negated };
  }
}

import type { Expression, FilterUse, Parameter, Statement, Target } from "./ast.js";
import { ExpressionParser } from "./expressions.js";
import { tokenize, type WhitespaceOptions } from "./lexer.js";

/** Parses a template. @throws TemplateError with the line, for what is no template or uses what is not supported */
export function parse(template: string, options?: WhitespaceOptions): readonly Statement[] {
  return new TemplateParser(tokenize(template, options)).template();
}

class TemplateParser extends ExpressionParser {
  template(): readonly Statement[] {
    return this.#body([]);
  }

  /** Statements up to one of the tags named, which is left for the caller with its "{%" and its name taken. */
  #body(ends: readonly string[]): Statement[] {
    const statements: Statement[] = [];
    return this.nested(() => {
      for (;;) {
        const token = this.take();
        if (token === undefined) {
          if (ends.length > 0) throw this.fail(`the template ends before {% ${ends.join(" %} or {% ")} %}`);
          return statements;
        }
        if (token.type === "text") statements.push({ type: "text", text: token.value });
        else if (token.value === "{{") {
          statements.push({ type: "print", value: this.tuple() });
          this.end();
        } else {
          const name = this.name();
          if (ends.includes(name)) {
            this.#ending = name;
            return statements;
          }
          statements.push(this.#statement(name));
        }
      }
    });
  }

  /** The tag at which the last `body` ended. */
  #ending = "";

  /** A body whose end tag takes nothing. */
  #bodyUntil(end: string): Statement[] {
    const statements = this.#body([end]);
    this.end();
    return statements;
  }

  #statement(name: string): Statement {
    switch (name) {
      case "if":
        return this.#if();
      case "for":
        return this.#for();
      case "set":
        return this.#set();
      case "with":
        return this.#with();
      case "macro":
        return this.#macro();
      case "call":
        return this.#call();
      case "filter": {
        const filters = this.#filters(false);
        this.end();
        return { type: "filterBlock", filters, body: this.#bodyUntil("endfilter") };
      }
      // transformers marks with it what the model itself writes.
      case "generation":
        this.end();
        return { type: "block", body: this.#bodyUntil("endgeneration") };
      case "break":
      case "continue":
        this.end();
        return { type: name };
      default:
        throw this.fail(`{% ${name} %} is not supported`);
    }
  }

  #if(): Statement {
    const branches: { test?: Expression; body: Statement[] }[] = [];
    let test: Expression | undefined = this.tuple();
    for (;;) {
      this.end();
      const body = test === undefined ? this.#body(["endif"]) : this.#body(["elif", "else", "endif"]);
      branches.push({ test, body });
      if (this.#ending === "endif") break;
      test = this.#ending === "elif" ? this.tuple() : undefined;
    }
    this.end();
    return { type: "if", branches };
  }

  #for(): Statement {
    const target = this.#target();
    this.expect("in");
    const items = this.tuple({ condition: false });
    const filter = this.skip("if") ? this.expression() : undefined;
    const recursive = this.skip("recursive");
    this.end();
    const body = this.#body(["else", "endfor"]);
    let otherwise: Statement[] = [];
    if (this.#ending === "else") {
      this.end();
      otherwise = this.#body(["endfor"]);
    }
    this.end();
    return { type: "for", target, items, filter, body, otherwise, recursive };
  }

  #set(): Statement {
    const target = this.#target();
    if (this.skip("=")) {
      const value = this.tuple();
      this.end();
      return { type: "set", target, value };
    }
    const filters = this.#filters(true);
    this.end();
    return { type: "setBlock", target, filters, body: this.#bodyUntil("endset") };
  }

  #with(): Statement {
    const values: [string, Expression][] = [];
    while (!this.at("%}")) {
      if (values.length > 0) this.expect(",");
      const name = this.name();
      this.expect("=");
      values.push([name, this.expression()]);
    }
    this.end();
    return { type: "with", values, body: this.#bodyUntil("endwith") };
  }

  #macro(): Statement {
    const name = this.name();
    const parameters = this.#parameters();
    this.end();
    return { type: "macro", name, parameters, body: this.#bodyUntil("endmacro") };
  }

  #call(): Statement {
    const parameters = this.at("(") ? this.#parameters() : [];
    const call = this.expression();
    if (call.type !== "call") throw this.fail("{% call %} needs a call");
    this.end();
    return { type: "callBlock", parameters, call, body: this.#bodyUntil("endcall") };
  }

  #parameters(): Parameter[] {
    const parameters: Parameter[] = [];
    this.expect("(");
    while (!this.skip(")")) {
      if (parameters.length > 0) this.expect(",");
      const name = this.name();
      parameters.push({ name, ...(this.skip("=") && { preset: this.expression() }) });
    }
    return parameters;
  }

  /** @param piped whether the first filter, too, has a bar in front */
  #filters(piped: boolean): FilterUse[] {
    const filters: FilterUse[] = [];
    while (piped || filters.length === 0 ? (filters.length === 0 && !piped) || this.skip("|") : this.skip("|")) {
      filters.push(this.filterUse());
    }
    return filters;
  }

  /** Names with commas between them, or an attribute of a namespace. */
  #target(): Target {
    const one = (): Target => {
      if (this.skip("(")) {
        const inner = this.#target();
        this.expect(")");
        return inner;
      }
      const name = this.name();
      return this.skip(".") ? { type: "attribute", of: name, name: this.name() } : { type: "name", name };
    };
    const items = [one()];
    let several = false;
    while (this.skip(",")) {
      several = true;
      if (this.at("=") || this.at("in") || this.at("%}")) break;
      items.push(one());
    }
    return several ? { type: "targets", items } : items[0];
  }
}

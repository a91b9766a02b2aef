/** A call's arguments. */
export interface CallArguments {
  args: readonly Expression[];
  named: readonly (readonly [string, Expression])[];
  /** `*list` and `**dict`. */
  rest?: Expression;
  namedRest?: Expression;
}

export interface CallExpression {
  type: "call";
  callee: Expression;
  given: CallArguments;
}

export type Expression =
  | { type: "literal"; value: null | boolean | number | string }
  | { type: "float"; value: number }
  | { type: "name"; name: string }
  | { type: "list" | "tuple"; items: readonly Expression[] }
  | { type: "dict"; entries: readonly (readonly [Expression, Expression])[] }
  | { type: "attribute"; of: Expression; name: string }
  | { type: "item"; of: Expression; key: Expression }
  | { type: "slice"; of: Expression; bounds: readonly (Expression | undefined)[] }
  | CallExpression
  | { type: "filter"; of: Expression; name: string; given: CallArguments }
  | { type: "test"; of: Expression; name: string; given: CallArguments; negated: boolean }
  | { type: "binary"; operator: string; left: Expression; right: Expression }
  | { type: "compare"; first: Expression; rest: readonly (readonly [string, Expression])[] }
  | { type: "and" | "or"; left: Expression; right: Expression }
  | { type: "not" | "negative" | "positive"; of: Expression }
  | { type: "condition"; test: Expression; value: Expression; otherwise?: Expression };

/** What a value is given to: a name, an attribute of a namespace, or several of them. */
export type Target =
  | { type: "name"; name: string }
  | { type: "attribute"; of: string; name: string }
  | { type: "targets"; items: readonly Target[] };

export interface Parameter {
  name: string;
  preset?: Expression;
}

export type Statement =
  | { type: "text"; text: string }
  | { type: "print"; value: Expression }
  | { type: "if"; branches: readonly { test?: Expression; body: readonly Statement[] }[] }
  | {
      type: "for";
      target: Target;
      items: Expression;
      filter?: Expression;
      body: readonly Statement[];
      otherwise: readonly Statement[];
      recursive: boolean;
    }
  | { type: "set"; target: Target; value: Expression }
  | { type: "setBlock"; target: Target; filters: readonly FilterUse[]; body: readonly Statement[] }
  | { type: "with"; values: readonly (readonly [string, Expression])[]; body: readonly Statement[] }
  | { type: "filterBlock"; filters: readonly FilterUse[]; body: readonly Statement[] }
  | { type: "macro"; name: string; parameters: readonly Parameter[]; body: readonly Statement[] }
  | { type: "callBlock"; parameters: readonly Parameter[]; call: CallExpression; body: readonly Statement[] }
  | { type: "block"; body: readonly Statement[] }
  | { type: "break" | "continue" };

export interface FilterUse {
  name: string;
  given: CallArguments;
}

import { type Fields, items, type Kind, type OperationName, type OperationTable, operations } from "./records.js";

type Value<K> = K extends "flag" ? boolean : number;
type Values<F> = { readonly [N in keyof F]: Value<F[N]> };
type Item<T> = T extends keyof typeof items ? readonly Values<(typeof items)[T]>[] : ArrayLike<number>;
type Lists<O> = O extends { lists: infer L } ? { readonly [N in keyof L]: Item<L[N]> } : unknown;

/** The operands of an operation by name, as records.ts declares them. */
export type Operands<O extends OperationName> = Values<(typeof operations)[O]["fields"]> &
  Lists<(typeof operations)[O]>;

interface Word {
  readonly name: string;
  readonly float: boolean;
}

interface Layout {
  readonly code: number;
  readonly words: readonly Word[];
  readonly lists: readonly { readonly name: string; readonly words: readonly Word[] | undefined }[];
}

const wordsOfFields = (fields: Fields): Word[] =>
  Object.entries(fields).map(([name, kind]: [string, Kind]) => ({ name, float: kind === "f32" }));

const layouts = Object.fromEntries(
  Object.entries(operations).map(([name, { fields, lists = {} }]: [string, OperationTable], n) => [
    name,
    {
      code: n + 1,
      words: wordsOfFields(fields),
      lists: Object.entries(lists).map(([list, item]) => ({
        name: list,
        words: Object.hasOwn(items, item) ? wordsOfFields(items[item as keyof typeof items]) : undefined,
      })),
    },
  ]),
) as unknown as Readonly<Record<OperationName, Layout>>;

type Loose = Readonly<Record<string, number>>;

/** Words that an operation takes in a program, its code and their number included. */
export function encodedWords<O extends OperationName>(op: O, operands: Operands<O>): number {
  const { words, lists } = layouts[op];
  let count = 2 + words.length + lists.length;
  for (const { name, words: item } of lists) {
    count += (operands as unknown as Record<string, ArrayLike<unknown>>)[name].length * (item?.length ?? 1);
  }
  return count;
}

/**
 * Writes an operation at word `at` of a program.
 * @param floats the same memory as `words`
 * @returns the word behind it
 */
export function encode<O extends OperationName>(
  op: O,
  operands: Operands<O>,
  words: Int32Array,
  floats: Float32Array,
  at: number,
): number {
  const layout = layouts[op];
  const lists = operands as unknown as Readonly<Record<string, ArrayLike<number> | readonly Loose[]>>;
  words[at] = layout.code;
  let next = write(layout.words, operands as unknown as Loose, words, floats, at + 2);
  for (const { name } of layout.lists) words[next++] = lists[name].length;
  for (const { name, words: item } of layout.lists) {
    if (item === undefined) {
      words.set(lists[name] as ArrayLike<number>, next);
      next += lists[name].length;
    } else for (const values of lists[name] as readonly Loose[]) next = write(item, values, words, floats, next);
  }
  words[at + 1] = next - at - 2;
  return next;
}

function write(fields: readonly Word[], values: Loose, words: Int32Array, floats: Float32Array, at: number): number {
  // Several hundred of these precede every token: counting beats destructuring here.
  for (let n = 0; n < fields.length; n++) {
    const field = fields[n];
    if (field.float) floats[at + n] = values[field.name];
    else words[at + n] = values[field.name];
  }
  return at + fields.length;
}

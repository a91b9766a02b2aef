import { chai, JestAsymmetricMatchers, JestChaiExpect, JestExtend } from "@vitest/expect";

// As much of vitest as test/contract uses, for a page. Tests are collected when they are declared, and run by `runCollected`.

type Body = () => unknown;

const tests: { name: string; body: Body }[] = [];
const [before, after]: Body[][] = [[], []];

for (const plugin of [JestExtend, JestChaiExpect, JestAsymmetricMatchers]) chai.use(plugin);
export const { expect } = chai;

export const describe = (_name: string, body: Body) => void body();
const declare = (name: string, body: Body) => void tests.push({ name, body });
const each =
  <T>(values: readonly T[]) =>
  (name: string, body: (value: T) => unknown) => {
    for (const value of values) declare(name.replace("%s", String(value)), () => body(value));
  };
export const it = Object.assign(declare, { each, skipIf: (skipped: boolean) => (skipped ? () => {} : declare) });
export const beforeAll = (body: Body) => void before.push(body);
export const afterAll = (body: Body) => void after.push(body);

export interface Outcome {
  name: string;
  /** undefined: passed */
  error?: string;
}

export async function runCollected(): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  for (const body of before) await body();
  for (const { name, body } of tests) {
    try {
      await body();
      outcomes.push({ name });
    } catch (error) {
      outcomes.push({ name, error: String(error) });
    }
  }
  for (const body of after) await body();
  return outcomes;
}

import { expect, test } from "vitest";
import { ModelPool, ModelsBusyError } from "./modelPool.js";
import type { ModelEntry, ServedModel } from "./servedModel.js";

/** A model that only counts how often it is let go of. */
function fakeModel(id: string, bytes: number) {
  const model = {
    id,
    opened: { model: { backend: { memoryBytes: () => model.bytes } } },
    bytes,
    disposed: 0,
    engine: undefined,
  };
  return Object.assign(model, {
    [Symbol.dispose]() {
      model.disposed++;
    },
  });
}

const entries = ["a", "b"].map((id) => ({ id }) as ModelEntry);

test("a pool that is closed while a model loads lets go of it, and of those that wait for it", async () => {
  const model = fakeModel("a", 10);
  let finish = () => {};
  let loads = 0;
  const loading = new Promise<void>((resolve) => {
    finish = resolve;
  });
  const pool = new ModelPool(entries, 100, async () => {
    loads++;
    await loading;
    return model as unknown as ServedModel;
  });
  const leases = [pool.lease("a"), pool.lease("a"), pool.lease("b")].map((lease) => lease.catch((error) => error));
  await Promise.resolve();
  pool[Symbol.dispose]();
  finish();
  for (const end of await Promise.all(leases)) expect(end).toBeInstanceOf(ModelsBusyError);
  expect([loads, model.disposed, pool.loaded.length]).toEqual([1, 1, 0]);
});

test("those not used for longest make room, those in use do not", async () => {
  const models = { a: fakeModel("a", 60), b: fakeModel("b", 60) };
  const pool = new ModelPool(
    entries,
    100,
    async ({ id }) => models[id as keyof typeof models] as unknown as ServedModel,
  );
  const lease = await pool.lease("a");
  await expect(pool.lease("b")).rejects.toThrow(ModelsBusyError);
  expect(models.a.disposed).toBe(0);
  lease[Symbol.dispose]();
  (await pool.lease("b"))[Symbol.dispose]();
  expect([models.a.disposed, pool.loaded.map(({ id }) => id)]).toEqual([1, ["b"]]);
  pool[Symbol.dispose]();
  // The first attempt loaded it and gave it back, too.
  expect(models.b.disposed).toBe(2);
});

test("a model whose keys and values have grown makes room once nobody uses it", async () => {
  const models = { a: fakeModel("a", 40), b: fakeModel("b", 40) };
  const load = async ({ id }: ModelEntry) => models[id as keyof typeof models] as unknown as ServedModel;
  const pool = new ModelPool(entries, 100, load);
  const first = await pool.lease("a");
  (await pool.lease("b"))[Symbol.dispose]();
  models.a.bytes = 70;
  // The one in use stays, the other one goes.
  const second = await pool.lease("a");
  expect([models.a.disposed, models.b.disposed]).toEqual([0, 1]);
  for (const lease of [first, second]) lease[Symbol.dispose]();
  pool[Symbol.dispose]();
});

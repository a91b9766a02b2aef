import { weightFormats } from "../pack/index.js";
import type { Backend } from "./backend.js";
import { isWholeHeads } from "./handles.js";
import type { Region } from "./region.js";
import * as shapes from "./shapes.js";

type Checks<Names extends keyof Backend> = {
  readonly [N in Names]?: NonNullable<Backend[N]> extends (...args: infer A) => unknown
    ? (backend: Backend, ...args: A) => void
    : never;
};

/** Operand checks of the operations that are enqueued. */
const enqueued: Checks<keyof Backend> = {
  allocate: (_, rows, cols) => shapes.checkAllocate(rows, cols),
  write: (_, out, values) => shapes.checkWrite(out, values),
  embed: (_, out, table, ids) => shapes.checkEmbed(out, table, ids),
  rmsNorm: (_, out, x, weight) => shapes.checkRmsNorm(out, x, weight.length),
  linear: (_, out, x, w, options = {}) => shapes.checkLinear(out, x, w, options),
  loadRope: (_, cos, sin, layout) => shapes.checkRopeLayout(cos, sin, layout),
  rope: (_, x, table, start) => shapes.checkRope(x, table, start),
  appendKv: (_, cache, layer, k, v, start) => shapes.checkAppendKv(cache, layer, k, v, start),
  attention: (_, out, q, cache, layer, options) => shapes.checkAttention(out, q, cache, layer, options),
  readKeys: (_, out, cache, layer, start) => shapes.checkReadKeys(out, cache, layer, start),
  poolRows: (_, out, x, options) => shapes.checkPoolRows(out, x, options),
  swapAxes: (_, out, x, options) => shapes.checkSwapAxes(out, x, options),
  // Whose operands each backend checks: see morphemes.ts, which no page loads before it needs it.
  morphemeScores: () => {},
  keepLargest: (_, out, x, choice) => shapes.checkKeepLargest(out, x, choice),
  headScores: (_, out, q, k, options) => shapes.checkHeadScores(out, q, k, options),
  createKvCache: (_, spec) => shapes.checkCacheSpec(spec),
  loadSight: (_, spec) => shapes.checkSight(spec),
  copyKv: (_, from, to, slots) => shapes.checkCopyKv(from, to, slots),
  moveKv: (_, cache, layer, moves) => shapes.checkMoveKv(cache, layer, moves),
  rotatedAttention(_, out, { q, k, v }, table, cache, layer, options) {
    shapes.check(
      "rotatedAttention",
      isWholeHeads(table),
      () => "a table that turns a part of each head, or neighbours",
    );
    shapes.checkRope(q, table, options.position);
    shapes.checkRope(k, table, options.position);
    shapes.checkAppendKv(cache, layer, k, v, options.start);
    shapes.checkAttention(out, q, cache, layer, options);
  },
  gatedActivation(_, out, gate, up) {
    shapes.checkSameShape("gatedActivation", out, gate);
    shapes.checkSameShape("gatedActivation", gate, up);
  },
  map: (_, out, x) => shapes.checkSameShape("map", out, x),
  layerNorm: (_, out, x, weight, bias) => shapes.checkLayerNorm(out, x, weight.length, bias?.length),
  add: (_, out, x) => shapes.checkSameShape("add", out, x),
  addGram: (_, gram, x) => shapes.checkAddGram(gram, x),
  choose: (_, x) => shapes.checkTopK(x, 1),
  expertLinear: (_, out, x, w, routing, options) => shapes.checkExpertLinear(out, x, w, routing, options),
  addExperts: (_, out, x, routing) => shapes.checkAddExperts(out, x, routing),
};

/** Those of what is awaited, which rejects. */
const awaited: Checks<keyof Backend> = {
  loadMatrix(backend, parts, format) {
    shapes.checkParts(parts);
    shapes.checkFormat(format, formatsOf(backend));
  },
  loadExperts(backend, experts, format, options) {
    shapes.checkExperts(experts, options?.biases);
    shapes.checkFormat(format, formatsOf(backend));
  },
  route: (_, logits, options) => shapes.checkRoute(logits, options),
  topK: (_, x, k) => shapes.checkTopK(x, k),
  readMass: (_, cache) => shapes.checkMass(cache),
};

const formatsOf = ({ formats }: Backend) => formats ?? Object.keys(weightFormats);

type Method = (...args: unknown[]) => unknown;
type Check = (backend: Backend, ...args: unknown[]) => void;

/**
 * The backend with a check of the operands before every operation, so that a wrong call fails by name on all backends alike
 * instead of reading or writing out of bounds on some. All throw UsageError.
 */
export function checked<B extends Backend>(backend: B): B {
  const released = new WeakSet<object>();
  const replaced: Partial<Backend> = {
    openRegion: (plan) => checkedRegion(backend, backend.openRegion(plan), released),
  };
  return withChecks(backend, backend, released, replaced as Partial<B>);
}

/** A region with the same checks; what it has loaded counts as released once it is disposed of. */
function checkedRegion(backend: Backend, region: Region, released: WeakSet<object>): Region {
  const handles: object[] = [];
  const kept = <T extends object>(handle: T): T => {
    handles.push(handle);
    return handle;
  };
  return withChecks(region, backend, released, {
    loadMatrix: async (...args) => kept(await region.loadMatrix(...args)),
    loadExperts: async (...args) => kept(await region.loadExperts(...args)),
    loadVector: (values) => kept(region.loadVector(values)),
    loadRope: (...args) => kept(region.loadRope(...args)),
    [Symbol.dispose]() {
      region[Symbol.dispose]();
      for (const handle of handles) released.add(handle);
    },
  });
}

function withChecks<T extends object>(
  target: T,
  backend: Backend,
  released: WeakSet<object>,
  replaced: Partial<T> = {},
): T {
  const members: PropertyDescriptorMap = {};
  for (const key of memberNames(target)) {
    const member = replaced[key as keyof T] ?? target[key as keyof T];
    members[key] =
      typeof member === "function"
        ? {
            value: withCheck(target, backend, released, key as keyof Backend, member as unknown as Method),
            configurable: true,
            writable: true,
          }
        : { get: () => target[key as keyof T], enumerable: true };
  }
  return Object.create(null, members);
}

function withCheck(
  target: object,
  backend: Backend,
  released: WeakSet<object>,
  name: keyof Backend,
  method: Method,
): Method {
  const check = enqueued[name] as Check | undefined;
  const awaitedCheck = awaited[name] as Check | undefined;
  if (awaitedCheck !== undefined) {
    return async (...args) => {
      awaitedCheck(backend, ...args);
      return method.apply(target, args);
    };
  }
  if (check === undefined) return method.bind(target);
  return (...args) => {
    checkAlive(String(name), args, released);
    check(backend, ...args);
    return method.apply(target, args);
  };
}

/** @throws UsageError for weights whose region was disposed of, also in the options */
function checkAlive(name: string, args: readonly unknown[], released: WeakSet<object>): void {
  for (const arg of args) {
    if (typeof arg !== "object" || arg === null) continue;
    const gone = released.has(arg) || ("bias" in arg && arg.bias !== undefined && released.has(arg.bias as object));
    shapes.check(name, !gone, () => "weights of a region that was disposed of");
  }
}

/** Of an object and its classes. */
function memberNames(object: object): Set<string | symbol> {
  const names = new Set<string | symbol>();
  for (let o = object; o !== Object.prototype; o = Object.getPrototypeOf(o)) {
    for (const name of Reflect.ownKeys(o)) names.add(name);
  }
  names.delete("constructor");
  return names;
}

import { weightFormats } from "../pack/index.js";
import type { Backend } from "./backend.js";
import { isWholeHeads } from "./handles.js";
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
  createKvCache: (_, spec) => shapes.checkCacheSpec(spec),
  loadSight: (_, spec) => shapes.checkSight(spec),
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
  const members: PropertyDescriptorMap = {};
  for (const key of memberNames(backend)) {
    const member = backend[key as keyof B];
    members[key] =
      typeof member === "function"
        ? {
            value: withCheck(backend, key as keyof Backend, member as unknown as Method),
            configurable: true,
            writable: true,
          }
        : { get: () => backend[key as keyof B], enumerable: true };
  }
  return Object.create(null, members);
}

function withCheck(backend: Backend, name: keyof Backend, method: Method): Method {
  const check = enqueued[name] as Check | undefined;
  const awaitedCheck = awaited[name] as Check | undefined;
  if (awaitedCheck !== undefined) {
    return async (...args) => {
      awaitedCheck(backend, ...args);
      return method.apply(backend, args);
    };
  }
  if (check === undefined) return method.bind(backend);
  return (...args) => {
    check(backend, ...args);
    return method.apply(backend, args);
  };
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

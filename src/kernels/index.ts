export type {
  Activation,
  AttentionOptions,
  Backend,
  BackendCounters,
  BackendInfo,
  KvCache,
  KvCacheSpec,
  LinearOptions,
  Matrix,
  MatrixPart,
  RopeTable,
  RowSource,
  TopK,
  Vector,
} from "./backend.js";
export { type BackendId, type BackendOptions, backends, openBackend } from "./table.js";

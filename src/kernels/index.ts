/// <reference lib="esnext.disposable" preserve="true" />
export type {
  Activation,
  AttentionOptions,
  Backend,
  BackendCounters,
  BackendInfo,
  Chosen,
  ElementFunction,
  GpuWork,
  HeadScoreOptions,
  LinearOptions,
  Matrix,
  MatrixPart,
  MorphemeScoreOptions,
  PoolOptions,
  ProductCosts,
  RopeLayout,
  RopeTable,
  RowSource,
  SwapOptions,
  TopK,
  Vector,
} from "./backend.js";
export type { BackendOptions } from "./backendOptions.js";
export type {
  ExpertLinearOptions,
  ExpertMatrices,
  ExpertOperations,
  LoadExpertsOptions,
  RoutedSlots,
  RouteOptions,
  Routing,
} from "./experts.js";
export type { InputChoice } from "./inputChoice.js";
export type { AttentionMass, KvCache, KvCacheSpec, KvLayer, KvMoves } from "./kv.js";
export type { KvCodes } from "./kvCodes.js";
export type { Region, WeightLoading } from "./region.js";
export {
  type ChosenSlots,
  chosenBlocks,
  type KeyBlocks,
  keyBlocks,
  kvBytesRead,
  rowsOfGroup,
  type Sight,
  type SightSpec,
  type SlotRange,
  slotsOfBlock,
} from "./sight.js";
export {
  type BackendId,
  backends,
  type DeviceId,
  devices,
  openBackend,
} from "./table.js";
export {
  type PlacedExperts,
  type PlacedRows,
  packedRowsOf,
  placedBytes,
  placesBytes,
  type ScatteredColumns,
  type ScatteredColumnsOptions,
  type ScatteredRows,
  scalesBytes,
  sumsBytes,
  type WeightArea,
} from "./weightArea.js";

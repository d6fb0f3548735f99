// The package's front door: typed errors, settings schemas, buffers and the backend. Everything else has its own subpath
// (`longwave/tensor`, `longwave/text` …), so that importing one part loads no other.
export { readConfigFile } from "./base/config.ts";
export {
  AbortedError,
  BackendError,
  CheckpointError,
  DataError,
  FormatError,
  InvariantError,
  LongwaveError,
  NotFiniteError,
  ShapeError,
  UsageError,
} from "./base/errors.ts";
export {
  defaultsOf,
  listOptions,
  type OptionInfo,
  type OptionMeta,
  parseOptions,
  resolveLayers,
  type SettingsLayer,
} from "./base/schema.ts";
export type { Backend, BackendOptions, Binding, Session, SessionOptions } from "./runtime/backend.ts";
export { allocate, bufferFrom, type TensorBuffer, viewOf } from "./runtime/buffer.ts";
export { type OpenedBackend, type OpenOptions, openBackend } from "./runtime/open.ts";
export type { DType, TypedArray } from "./tensor/dtype.ts";

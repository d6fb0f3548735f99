// The package's front door: typed errors, settings schemas, and the main verbs of every part. The rest of a part is in its own subpath
// (`longwave/tensor`, `longwave/text` …), and importing one of those loads only what it needs. No native library is loaded here:
// that is left to openBackend.
export { readConfigFile } from "./base/config.ts";
export {
  AbortedError,
  BackendError,
  CheckpointError,
  DataError,
  EnvironmentError,
  FormatError,
  InvariantError,
  LongwaveError,
  NotFiniteError,
  RemoteError,
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
export { openCorpus, packDocuments, splitTokens, stateOfTheUnion, tokensOf } from "./data/index.ts";
export {
  complete,
  DecoderRunner,
  type GenerationEvent,
  type GenerationRequest,
  generate,
  type SamplingOptionsInput,
} from "./decode/index.ts";
export {
  collectEvents,
  createRunDirectory,
  installSignalHandlers,
  openCheckpoint,
  openRunDirectory,
  type RunEvent,
  runLoop,
  type Trainable,
  withSinks,
} from "./engine/index.ts";
export {
  allocateDecoder,
  type DecoderConfig,
  decoderConfig,
  decoderPresets,
  type LoadedDecoder,
  loadDecoder,
  saveDecoder,
} from "./models/index.ts";
export { initializeParameters, type ParameterSpec, parameter } from "./nn/index.ts";
export { createOptimizer, createSchedule, type Optimizer } from "./optim/index.ts";
export { Conversation, load, type PretrainOptions, pretrain, quickstartOptions, TextModel } from "./recipes/index.ts";
export type { Binding, Session, SessionOptions } from "./runtime/backend.ts";
export {
  allocate,
  allocateFlat,
  type Backend,
  type BackendOptions,
  type BoundProgram,
  bufferFrom,
  type CompileOptions,
  compile,
  compileAsync,
  type FlatBuffer,
  type OpenedBackend,
  type OpenOptions,
  openBackend,
  type Program,
  Random,
  spec,
  type TensorBuffer,
  type TensorSpec,
  viewOf,
} from "./runtime/index.ts";
export { type DType, gradients, jvp, type Tensor, type TypedArray, vjp } from "./tensor/index.ts";
export { loadTokenizer, saveTokenizer, type Tokenizer, tokenizerFromTrained, trainBpe } from "./text/index.ts";
export { LanguageModelTrainer } from "./train/index.ts";

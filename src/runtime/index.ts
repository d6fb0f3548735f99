// Backends, programs and memory.
export type { Backend, BackendOptions, OptimizationLevel, ProfileEvent } from "./backend.ts";
export { allocate, bufferFrom, type TensorBuffer, viewOf } from "./buffer.ts";
export { allocateFlat, type FlatBuffer, type FlatGroup, type FlatLayout, type FlatLeaf, layoutOf } from "./flat.ts";
export { KVCache, type KVCacheShape, type KVSnapshot } from "./kv-cache.ts";
export { measurePeakFlops } from "./measure.ts";
export { type BackendName, type OpenedBackend, type OpenOptions, openBackend } from "./open.ts";
export { type BoundProgram, type CompileOptions, compile, compileAsync, type Program, spec, type TensorSpec } from "./program.ts";
export { Random, type RandomState, randomNormal, randomUniform, streamId } from "./rng.ts";
export { fillNormal, fillTruncatedNormal, fillUniform, type RandomKey } from "./rng-fill.ts";

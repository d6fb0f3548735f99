// Entry of longwave/formats: files that models and tokenizers come in.
export { type GgufSource, openGguf } from "./gguf.ts";
export type { GgufArray, GgufEntry, GgufMetadataEntry, GgufValue, GgufValueType } from "./gguf-header.ts";
export type { GgufTypeName } from "./gguf-types.ts";
export { type GgufTensor, type GgufWriteOptions, ggufEntry, writeGguf } from "./gguf-write.ts";
export { bfloat16ToFloat32, float16ToFloat32, float32ToBfloat16, float32ToFloat16 } from "./half.ts";
export {
  type HfConfig,
  type HfGenerationConfig,
  parseHfConfig,
  parseHfGenerationConfig,
  readHfConfig,
  readHfGenerationConfig,
  writeHfConfig,
} from "./hf-config.ts";
export { downloadModel, type HubOptions, type HubProgress } from "./hub.ts";
export { readJson, readJsonObject, readTextFile } from "./json-file.ts";
export { type Llama2cConfig, type Llama2cSource, llama2cToHfConfig, openLlama2c } from "./llama2c.ts";
export { openSafetensors, type SafetensorsSource } from "./safetensors.ts";
export { fromSafetensorsDType, type SafetensorsDType, toSafetensorsDType } from "./safetensors-dtype.ts";
export type { SafetensorsEntry } from "./safetensors-header.ts";
export { type ShardedTensor, type ShardOptions, writeShardedSafetensors } from "./safetensors-shards.ts";
export {
  type SafetensorsSpec,
  type SafetensorsTensor,
  type SafetensorsWriteOptions,
  SafetensorsWriter,
  writeSafetensors,
} from "./safetensors-write.ts";
export type { TensorEntry, TensorSource } from "./tensor-source.ts";
export { openTorch, type TorchEntry, type TorchSource, type TorchValue } from "./torch-file.ts";
export { openWeights } from "./weights.ts";

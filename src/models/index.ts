// Architectures: the configurable decoder, its checkpoints, its cost.
export { type CachedEmission, type CachedInputs, decoderCached, emissionFor } from "./decoder/cached.ts";
export {
  allocateDecoder,
  families,
  familyOf,
  type LoadedDecoder,
  loadDecoder,
  type SaveOptions,
  saveDecoder,
  toHfConfig,
} from "./decoder/checkpoint.ts";
export { type DecoderConfig, type DecoderOptions, decoderConfig, decoderSchema } from "./decoder/config.ts";
export {
  decoderForward,
  decoderLogits,
  type LanguageModelLoss,
  languageModelLoss,
  type SequenceOptions,
  trainingLoss,
} from "./decoder/decoder.ts";
export { type DecoderEstimate, estimateDecoder } from "./decoder/estimate.ts";
export { ggufHfConfig } from "./decoder/gguf-config.ts";
export { loadQuantisedGguf, type QuantisedGguf } from "./decoder/gguf-quantised.ts";
export { saveGguf } from "./decoder/gguf-save.ts";
export { expertsSchema, latentSchema, rotaryScalingSchema } from "./decoder/options.ts";
export { type DecoderParameters, decoderParameters } from "./decoder/parameters.ts";
export { type DecoderPreset, type DecoderPresetName, decoderPresets } from "./decoder/presets.ts";
export { bytesOfTree, type InferenceModel, type QuantisedDecoder, type QuantiseOptions, quantiseDecoder } from "./decoder/quantise.ts";
export {
  allocateMedusa,
  checkMedusaTarget,
  createMedusa,
  type MedusaConfig,
  type MedusaHeads,
  type MedusaOptions,
  medusaConfig,
  medusaLogits,
  medusaSchema,
} from "./heads/medusa.ts";
export { type LoadedMedusa, loadMedusa, type MedusaInfo, saveMedusa } from "./heads/medusa-checkpoint.ts";
export { type LoadedPolicy, loadPolicy, savePolicy } from "./policy/checkpoint.ts";
export {
  actionSize,
  headSize,
  type PolicyActivation,
  type PolicyConfig,
  type PolicyHead,
  type PolicyOptions,
  policyConfig,
  policySchema,
} from "./policy/config.ts";
export { checkpointNames as policyCheckpointNames } from "./policy/names.ts";
export { type ActorOutput, actorForward, criticForward, policyForward } from "./policy/network.ts";
export { allocatePolicy, createPolicy, type Policy, type PolicyParameters, policyParameters } from "./policy/parameters.ts";

// Generation: run a decoder over its cache, choose tokens, stop, stream.
export {
  complete,
  type FinishEvent,
  type FinishReason,
  type GenerateOptions,
  type GenerationEvent,
  type GenerationRequest,
  generate,
  type TokenEvent,
} from "./generate.ts";
export { DecoderRunner, type RunnerOptions } from "./runner.ts";
export type { LogitsProcessor, SamplingContext } from "./sampling/context.ts";
export { Distribution } from "./sampling/distribution.ts";
export { samplingOptionsFromGenerationConfig } from "./sampling/generation-config.ts";
export { logSumExp, tokenLogProbability, topLogProbabilities } from "./sampling/log-probabilities.ts";
export { ignoredSettings, type SamplingOptions, type SamplingOptionsInput, samplingOptions } from "./sampling/options.ts";
export { createProcessor, type Processor, type ProcessorOptions } from "./sampling/processor.ts";
export { argmax, type SamplingKey, sampleToken, tokenUniform } from "./sampling/sample.ts";
export { createStopStringMatcher, type StopMatch, type StopStringMatcher, type StopStringOptions } from "./stop-strings.ts";

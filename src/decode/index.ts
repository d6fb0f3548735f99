// Generation: run a decoder over its cache, choose tokens, stop, stream.
export { type CostCurveOptions, measureCostCurve, measureDraftCost } from "./cost-curve.ts";
export type { DraftContext, Drafter, DrafterNeeds, DraftTarget, StepOutcome } from "./drafter.ts";
export { DraftModelDrafter, type DraftModelOptions, type DraftModelSetup, draftModelSchema } from "./drafters/draft-model.ts";
export { GrammarDrafter, type GrammarDrafterOptions } from "./drafters/grammar.ts";
export { LookupDrafter, type LookupOptions, lookupSchema } from "./drafters/lookup.ts";
export { MedusaDrafter, type MedusaDrafterOptions } from "./drafters/medusa.ts";
export { SuffixDrafter, type SuffixOptions, suffixSchema } from "./drafters/suffix.ts";
export {
  complete,
  type FinishEvent,
  type FinishReason,
  type GenerateOptions,
  type GenerationEvent,
  type GenerationRequest,
  generate,
  type TextEvent,
  type TokenEvent,
} from "./generate.ts";
export { compileGrammar, constrain, grammarOf, grammarVocabulary } from "./grammar/compile-grammar.ts";
export { type ConstraintOptions, GrammarConstraint } from "./grammar/constraint.ts";
export { Grammar } from "./grammar/grammar.ts";
export { type JsonSchemaOptions, jsonSchemaOptions } from "./grammar/json-schema.ts";
export { GrammarVocabulary } from "./grammar/vocabulary.ts";
export { loadPromptCache, modelFingerprint, savePromptCache } from "./prompt-cache.ts";
export { DecoderRunner, type RunnerOptions } from "./runner.ts";
export type { TargetFeatures, TargetRows } from "./runner-calls.ts";
export type { GrammarStep, LogitsProcessor, SamplingContext } from "./sampling/context.ts";
export { Distribution } from "./sampling/distribution.ts";
export { drySequenceBreakersOf } from "./sampling/dry.ts";
export { samplingOptionsFromGenerationConfig } from "./sampling/generation-config.ts";
export { logSumExp, tokenLogProbability, topLogProbabilities } from "./sampling/log-probabilities.ts";
export {
  type GrammarOptionsInput,
  grammarOptions,
  ignoredSettings,
  type SamplingOptions,
  type SamplingOptionsInput,
  samplingOptions,
} from "./sampling/options.ts";
export { createProcessor, type Processor, type ProcessorOptions } from "./sampling/processor.ts";
export { argmax, type SamplingKey, sampleToken, tokenUniform } from "./sampling/sample.ts";
export type { SpeculationStep } from "./speculate.ts";
export type { SpeculationSummary } from "./speculation-metrics.ts";
export {
  type CostPoint,
  chooseTreeSize,
  costAt,
  type GrownTree,
  type GrowOptions,
  growTree,
  independentPaths,
  jointPaths,
  type PathProbability,
  type TreeSize,
} from "./static-tree.ts";
export { bestChainLength, StepCosts } from "./step-costs.ts";
export { createStopStringMatcher, type StopMatch, type StopStringMatcher, type StopStringOptions } from "./stop-strings.ts";
export { clipTree, rootOnly, type TokenTree, TreeShape } from "./token-tree.ts";
export { TrimmedVocabulary } from "./trimmed-vocabulary.ts";
export { blockVerifier } from "./verifiers/block.ts";
export { deterministicVerifier } from "./verifiers/deterministic.ts";
export { greedyVerifier } from "./verifiers/greedy.ts";
export { rejectionVerifier } from "./verifiers/rejection.ts";
export { type RelaxedOptions, relaxedVerifier } from "./verifiers/relaxed.ts";
export { tokenMatchVerifier } from "./verifiers/token-match.ts";
export { type TypicalOptions, typicalVerifier } from "./verifiers/typical.ts";
export type { Chance, TargetView, Verdict, Verifier } from "./verifiers/verifier.ts";
export { VocabularyMap, type VocabularyMapOptions, type VocabularySide } from "./vocabulary-map.ts";

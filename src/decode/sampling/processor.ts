// From logits to the distribution that a token is drawn from: the steps that the options ask for, in transformers' order.
//   on logits:        a grammar, sequenceBias, repetitionPenalty, frequency/presencePenalty, DRY, noRepeatNgramSize, badWordsIds, minLength,
//                     minNewTokens, forcedBosTokenId, forcedEosTokenId, exponentialDecayLengthPenalty, suppressTokens,
//                     beginSuppressTokens, then the caller's own processors (a grammar's mask, say)
//   when sampling:    topNSigma, temperature, topH, topK, topP, minP, typicalP, epsilonCutoff, etaCutoff, XTC
// Transformers has no frequency and presence penalties (they stand where vLLM has them) and no topNSigma (temperature does not
// change its set; before temperature it cannot overflow).
import { ShapeError } from "../../base/errors.ts";
import { parseOptions } from "../../base/schema.ts";
import { badWordsProcessor } from "./bad-words.ts";
import { Candidates, type Preselection } from "./candidates.ts";
import type { CandidateStep, GrammarStep, LogitsProcessor, SamplingContext } from "./context.ts";
import { Distribution } from "./distribution.ts";
import { dryProcessor } from "./dry.ts";
import { applyEpsilonCutoff } from "./epsilon-cutoff.ts";
import { applyEtaCutoff } from "./eta-cutoff.ts";
import { forcedBosProcessor, forcedEosProcessor } from "./forced-tokens.ts";
import { frequencyPresenceProcessor } from "./frequency-presence.ts";
import { lengthDecayProcessor } from "./length-decay.ts";
import { minLengthProcessor, minNewTokensProcessor } from "./min-length.ts";
import { applyMinP } from "./min-p.ts";
import { noRepeatNgramProcessor } from "./no-repeat-ngram.ts";
import { checkSamplingOptions, isGreedy, listOf, type SamplingOptions, type SamplingOptionsInput, samplingOptions } from "./options.ts";
import { repetitionPenaltyProcessor } from "./repetition-penalty.ts";
import { argmax } from "./sample.ts";
import { sequenceBiasProcessor } from "./sequence-bias.ts";
import { beginSuppressTokensProcessor, suppressTokensProcessor } from "./suppress-tokens.ts";
import { applyTemperature } from "./temperature.ts";
import { applyTopH, topHPoolSize, topHScratch } from "./top-h.ts";
import { applyTopK } from "./top-k.ts";
import { applyTopNSigma } from "./top-n-sigma.ts";
import { applyTopP } from "./top-p.ts";
import { applyTypicalP, typicalScratch } from "./typical-p.ts";
import { applyXtc } from "./xtc.ts";

export interface ProcessorOptions {
  /** V: the length of a row of logits. */
  vocabularySize: number;
  /** What the text has to keep to; the first step. */
  grammar?: GrammarStep;
  /** Own steps, after the built-in ones on logits and before temperature. */
  processors?: readonly LogitsProcessor[];
}

/**
 * The processor that sampling options describe. It allocates for its vocabulary once and nothing per token.
 * @throws UsageError for options that are wrong, or that do not fit the vocabulary.
 */
export function createProcessor(options: SamplingOptionsInput, processorOptions: ProcessorOptions): Processor {
  const parsed = parseOptions(samplingOptions, options);
  checkSamplingOptions(parsed, processorOptions.vocabularySize);
  return new Processor(parsed, processorOptions);
}

/** Made by {@link createProcessor}. One per thread of execution: its scratch memory is shared by all of its calls. */
export class Processor {
  readonly options: SamplingOptions;
  readonly vocabularySize: number;
  /** Tokens are chosen by argmax; the distribution is one-hot. */
  readonly greedy: boolean;
  /** The distribution depends on the sequence, not on the logits alone. */
  readonly dependsOnSequence: boolean;
  readonly grammar: GrammarStep | undefined;
  /** Names of the steps as they are applied. */
  readonly steps: readonly string[];
  readonly #onLogits: readonly LogitsProcessor[];
  readonly #onCandidates: readonly CandidateStep[];
  readonly #preselection: Preselection | undefined;
  readonly #candidates: Candidates;
  readonly #logits: Float32Array;

  constructor(options: SamplingOptions, processorOptions: ProcessorOptions) {
    const { vocabularySize, grammar, processors = [] } = processorOptions;
    const onLogits = logitsSteps(options, vocabularySize);
    if (grammar) onLogits.unshift(["grammar", (logits_V, context) => grammar.apply(logits_V, context)]);
    this.grammar = grammar;
    for (const processor of processors) onLogits.push(["own", processor]);
    this.greedy = isGreedy(options);
    const onCandidates = this.greedy ? [] : candidateSteps(options, vocabularySize);
    this.options = options;
    this.vocabularySize = vocabularySize;
    this.dependsOnSequence = onLogits.length > 0;
    this.steps = [...onLogits, ...onCandidates].map(([name]) => name);
    this.#onLogits = onLogits.map(([, step]) => step);
    this.#onCandidates = onCandidates.map(([, step]) => step);
    this.#preselection = preselectionOf(options);
    this.#candidates = new Candidates(vocabularySize);
    this.#logits = new Float32Array(vocabularySize);
  }

  /**
   * Processes a row of logits [V] in place, as transformers' processors do: -Infinity for tokens that were cut off.
   * When greedy, only the steps on logits apply.
   */
  process(logits_V: Float32Array, context: SamplingContext): void {
    this.#check(logits_V);
    for (const step of this.#onLogits) step(logits_V, context);
    if (this.#onCandidates.length > 0) this.#narrow(logits_V).store(logits_V);
  }

  /**
   * The next token. `logits_V` stays as it is.
   * @param uniform a number in [0, 1) (see `tokenUniform`); greedy decoding ignores it.
   */
  select(logits_V: Float32Array, context: SamplingContext, uniform: number): number {
    const logits = this.#edit(logits_V, context);
    if (this.greedy) return argmax(logits);
    const { ids, weights, count, total } = this.#weigh(logits);
    // Normalised before it is summed: the same arithmetic, hence the same token, as `Distribution.sample` and `sampleToken`.
    let cumulative = 0;
    let last = 0;
    for (let i = 0; i < count; i++) {
      const probability = weights[i] / total;
      if (probability === 0) continue;
      cumulative += probability;
      last = ids[i];
      if (uniform < cumulative) break;
    }
    return last;
  }

  /** The exact distribution that `select` draws from. `into` is overwritten and returned. */
  distribution(logits_V: Float32Array, context: SamplingContext, into = new Distribution()): Distribution {
    const logits = this.#edit(logits_V, context);
    return this.greedy ? into.setOneHot(argmax(logits)) : into.setCandidates(this.#weigh(logits));
  }

  /** The same as dense probabilities [V]. */
  probabilities(logits_V: Float32Array, context: SamplingContext, out_V = new Float64Array(this.vocabularySize)): Float64Array {
    const logits = this.#edit(logits_V, context);
    out_V.fill(0);
    if (this.greedy) {
      out_V[argmax(logits)] = 1;
      return out_V;
    }
    const { ids, weights, count, total } = this.#weigh(logits);
    for (let i = 0; i < count; i++) out_V[ids[i]] = weights[i] / total;
    return out_V;
  }

  /** Logits after the steps on logits; a copy only where there are such steps. */
  #edit(logits_V: Float32Array, context: SamplingContext): Float32Array {
    this.#check(logits_V);
    if (this.#onLogits.length === 0) return logits_V;
    this.#logits.set(logits_V);
    for (const step of this.#onLogits) step(this.#logits, context);
    return this.#logits;
  }

  #narrow(logits_V: Float32Array): Candidates {
    this.#candidates.load(logits_V, this.#preselection);
    for (const step of this.#onCandidates) step(this.#candidates);
    return this.#candidates;
  }

  #weigh(logits_V: Float32Array): Candidates {
    const candidates = this.#narrow(logits_V);
    candidates.weigh();
    return candidates;
  }

  #check(logits_V: Float32Array): void {
    if (logits_V.length !== this.vocabularySize) {
      throw new ShapeError(`sampling: expected ${this.vocabularySize} logits, got ${logits_V.length}`);
    }
  }
}

function logitsSteps(options: SamplingOptions, vocabularySize: number): [name: string, LogitsProcessor][] {
  const { repetitionPenalty, penalizePrompt, frequencyPenalty, presencePenalty, exponentialDecayLengthPenalty, maxLength } = options;
  const eosTokenIds = listOf(options.eosTokenId);
  const steps: [string, LogitsProcessor][] = [];
  if (options.sequenceBias.length > 0) steps.push(["sequenceBias", sequenceBiasProcessor(options.sequenceBias)]);
  if (repetitionPenalty !== 1) {
    steps.push(["repetitionPenalty", repetitionPenaltyProcessor({ penalty: repetitionPenalty, penalizePrompt, vocabularySize })]);
  }
  if (frequencyPenalty !== 0 || presencePenalty !== 0) {
    steps.push(["frequencyPresence", frequencyPresenceProcessor({ frequencyPenalty, presencePenalty, vocabularySize })]);
  }
  if (options.dryMultiplier > 0) steps.push(["dry", dryProcessor(options)]);
  if (options.noRepeatNgramSize > 0) steps.push(["noRepeatNgram", noRepeatNgramProcessor(options.noRepeatNgramSize)]);
  if (options.badWordsIds.length > 0) steps.push(["badWords", badWordsProcessor(options.badWordsIds, eosTokenIds)]);
  if (options.minLength > 0) steps.push(["minLength", minLengthProcessor(options.minLength, eosTokenIds)]);
  if (options.minNewTokens > 0) steps.push(["minNewTokens", minNewTokensProcessor(options.minNewTokens, eosTokenIds)]);
  if (options.forcedBosTokenId !== null) steps.push(["forcedBos", forcedBosProcessor(options.forcedBosTokenId)]);
  if (options.forcedEosTokenId !== null && maxLength !== null) {
    steps.push(["forcedEos", forcedEosProcessor(listOf(options.forcedEosTokenId), maxLength)]);
  }
  if (exponentialDecayLengthPenalty !== null) {
    const [start, factor] = exponentialDecayLengthPenalty;
    steps.push(["exponentialDecayLengthPenalty", lengthDecayProcessor(start, factor, eosTokenIds)]);
  }
  if (options.suppressTokens.length > 0) steps.push(["suppressTokens", suppressTokensProcessor(options.suppressTokens)]);
  if (options.beginSuppressTokens.length > 0) {
    const step = beginSuppressTokensProcessor(options.beginSuppressTokens, options.forcedBosTokenId !== null);
    steps.push(["beginSuppressTokens", step]);
  }
  return steps;
}

function candidateSteps(options: SamplingOptions, vocabularySize: number): [name: string, CandidateStep][] {
  const { temperature, topNSigma, topH, topK, topP, minP, typicalP, epsilonCutoff, etaCutoff, xtcProbability, xtcThreshold } = options;
  const steps: [string, CandidateStep][] = [];
  if (topNSigma > 0) steps.push(["topNSigma", (candidates) => applyTopNSigma(candidates, topNSigma)]);
  if (temperature !== 1) steps.push(["temperature", (candidates) => applyTemperature(candidates, temperature)]);
  if (topH > 0) {
    const order = topHScratch();
    steps.push(["topH", (candidates) => applyTopH(candidates, topH, order)]);
  }
  if (topK > 0) steps.push(["topK", (candidates) => applyTopK(candidates, topK)]);
  if (topP < 1) steps.push(["topP", (candidates) => applyTopP(candidates, topP)]);
  if (minP > 0) steps.push(["minP", (candidates) => applyMinP(candidates, minP)]);
  if (typicalP < 1) {
    const scratch = typicalScratch(vocabularySize);
    steps.push(["typicalP", (candidates) => applyTypicalP(candidates, typicalP, scratch)]);
  }
  if (epsilonCutoff > 0) steps.push(["epsilonCutoff", (candidates) => applyEpsilonCutoff(candidates, epsilonCutoff)]);
  if (etaCutoff > 0) steps.push(["etaCutoff", (candidates) => applyEtaCutoff(candidates, etaCutoff)]);
  if (xtcProbability > 0 && xtcThreshold <= 0.5) {
    steps.push(["xtc", (candidates) => applyXtc(candidates, xtcProbability, xtcThreshold)]);
  }
  return steps;
}

/** What the first truncation, in the order above, keeps at most. Temperature in between does not change the order of tokens. */
function preselectionOf(options: SamplingOptions): Preselection | undefined {
  const { temperature, topNSigma, topH, topK, topP, minP } = options;
  if (topNSigma > 0) return undefined;
  if (topH > 0) return { largest: topHPoolSize };
  if (topK > 0) return { largest: topK };
  if (topP < 1 || minP === 0) return undefined;
  return { distance: -Math.log(minP) * temperature };
}

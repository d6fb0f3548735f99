// Every sampling setting, documented and defaulted in one schema. A default changes nothing: it samples from the model's own
// distribution. The names are those of Hugging Face's GenerationConfig in camel case; steps run in the order of transformers
// (see `processor.ts`), whatever the order of the keys.
import { z } from "zod";
import { UsageError } from "../../base/errors.ts";

const tokenId = z.number().int().min(0);
const tokenSequence = z.array(tokenId).min(1);

export const samplingOptions = z.strictObject({
  doSample: z.boolean().default(true).describe("Sample; false takes the most probable token and ignores temperature and truncations."),
  temperature: z.number().min(0).default(1).describe("Divides the logits; 0 means greedy decoding, as doSample: false does."),
  topNSigma: z.number().min(0).default(0).describe("Keep logits within this many standard deviations of the largest; 0 = off."),
  topH: z.number().min(0).max(1).default(0).describe("Keep the top tokens while they hold at most this share of the entropy; 0 = off."),
  topK: z.number().int().min(0).default(0).describe("Keep the k most probable tokens (and ties with the k-th); 0 = off."),
  topP: z.number().min(0).max(1).default(1).describe("Keep the smallest set of most probable tokens with at least this mass; 1 = off."),
  minP: z.number().min(0).max(1).default(0).describe("Keep tokens at least this probable relative to the most probable one; 0 = off."),
  typicalP: z.number().gt(0).max(1).default(1).describe("Keep the locally typical set of this mass; 1 = off."),
  epsilonCutoff: z.number().min(0).lt(1).default(0).describe("Keep tokens of at least this probability; 0 = off."),
  etaCutoff: z.number().min(0).lt(1).default(0).describe("Keep tokens above a floor that falls with the entropy; 0 = off."),
  xtcProbability: z.number().min(0).max(1).default(0).describe("How often the most probable tokens are left out (XTC); 0 = off."),
  xtcThreshold: z
    .number()
    .min(0)
    .max(1)
    .default(0.1)
    .describe("XTC leaves out the tokens of at least this probability, but the least probable of them; above 0.5 = off."),
  dryMultiplier: z.number().min(0).default(0).describe("Strength of the penalty on tokens that continue a repetition (DRY); 0 = off."),
  dryBase: z.number().min(1).default(1.75).describe("Growth of the DRY penalty for each token that the repetition is longer."),
  dryAllowedLength: z
    .number()
    .int()
    .min(1)
    .default(2)
    .describe("Repetitions up to this length are not penalised by DRY, the next token included."),
  dryPenaltyLastN: z.number().int().min(-1).default(-1).describe("How many of the last ids DRY looks at; -1 = all, 0 = off."),
  drySequenceBreakers: z
    .array(tokenSequence)
    .default([])
    .describe("Token sequences that no repetition reaches across (see drySequenceBreakersOf)."),
  repetitionPenalty: z.number().gt(0).default(1).describe("Divides positive and multiplies negative logits of tokens seen; 1 = off."),
  penalizePrompt: z.boolean().default(true).describe("Whether repetitionPenalty counts the prompt as seen."),
  frequencyPenalty: z.number().default(0).describe("Subtracted from a logit for every time its token was generated; 0 = off."),
  presencePenalty: z.number().default(0).describe("Subtracted once from the logits of tokens that were generated; 0 = off."),
  noRepeatNgramSize: z.number().int().min(0).default(0).describe("No run of this many ids may occur twice, prompt included; 0 = off."),
  badWordsIds: z.array(tokenSequence).default([]).describe("Token sequences that must not be generated."),
  sequenceBias: z
    .array(z.tuple([tokenSequence, z.number()]))
    .default([])
    .describe("Pairs [ids, bias]: added to the logit of the last id when the others are the end of the text."),
  suppressTokens: z.array(tokenId).default([]).describe("Token ids that are never generated."),
  beginSuppressTokens: z.array(tokenId).default([]).describe("Token ids that are not generated first."),
  minLength: z.number().int().min(0).default(0).describe("No end of sequence before this many ids, prompt included."),
  minNewTokens: z.number().int().min(0).default(0).describe("No end of sequence before this many generated ids."),
  maxLength: z.number().int().min(1).nullable().default(null).describe("Ids in all, prompt included; only forcedEosTokenId needs it."),
  eosTokenId: z
    .union([tokenId, z.array(tokenId)])
    .default([])
    .describe("The id or ids that end a sequence."),
  forcedBosTokenId: tokenId.nullable().default(null).describe("The token after a prompt of one id."),
  forcedEosTokenId: z
    .union([tokenId, z.array(tokenId), z.null()])
    .default(null)
    .describe("The last token when a sequence reaches maxLength."),
  exponentialDecayLengthPenalty: z
    .tuple([z.number().int().min(0), z.number().gt(0)])
    .nullable()
    .default(null)
    .describe("[start, factor]: after start generated ids the end of sequence gains factor^n - 1 times its logit."),
});

/** What a text has to keep to. Compiled for a tokenizer by `compileGrammar`, and given to generation beside the sampling options. */
export const grammarOptions = z.strictObject({
  grammar: z.string().nullable().default(null).describe("A grammar in llama.cpp's notation (GBNF) that the text has to keep to."),
  grammarRoot: z.string().default("root").describe("The rule that the grammar begins with."),
  jsonSchema: z.unknown().default(null).describe("A JSON schema that the text has to satisfy; true asks for any JSON."),
  jsonSchemaStrict: z.boolean().default(true).describe("Refuse keywords of the schema that a grammar cannot keep to; false ignores them."),
});
/** Settings of a grammar as a user writes them. */
export type GrammarOptionsInput = z.input<typeof grammarOptions>;

/** Settings as a user writes them. */
export type SamplingOptionsInput = z.input<typeof samplingOptions>;
/** Settings with all defaults filled in. */
export type SamplingOptions = z.output<typeof samplingOptions>;

/** The token is chosen by argmax. */
export const isGreedy = (options: SamplingOptions): boolean => !options.doSample || options.temperature === 0;

const sampledOnly = ["topNSigma", "topH", "topK", "topP", "minP", "typicalP", "epsilonCutoff", "etaCutoff", "xtcProbability"] as const;
const needsEos = ["minLength", "minNewTokens", "exponentialDecayLengthPenalty"] as const;

/** Settings that were changed from their defaults and have no effect next to the others; for a warning. */
export function ignoredSettings(options: SamplingOptions): string[] {
  const defaults = samplingOptions.parse({});
  const ignored: string[] = [];
  if (isGreedy(options)) ignored.push(...sampledOnly.filter((name) => options[name] !== defaults[name]));
  if (!options.doSample && options.temperature !== 1) ignored.push("temperature");
  if (options.repetitionPenalty === 1 && !options.penalizePrompt) ignored.push("penalizePrompt");
  if (options.xtcProbability > 0 && options.xtcThreshold > 0.5) ignored.push("xtcProbability");
  if (options.dryMultiplier === 0) {
    const dry = ["dryBase", "dryAllowedLength", "dryPenaltyLastN"] as const;
    ignored.push(...dry.filter((name) => options[name] !== defaults[name]));
    if (options.drySequenceBreakers.length > 0) ignored.push("drySequenceBreakers");
  }
  return ignored;
}

/**
 * Checks what the schema cannot: ids against the vocabulary, and settings that need another one.
 * @throws UsageError
 */
export function checkSamplingOptions(options: SamplingOptions, vocabularySize: number): void {
  const idLists: Record<string, readonly number[]> = {
    badWordsIds: options.badWordsIds.flat(),
    sequenceBias: options.sequenceBias.flatMap(([ids]) => ids),
    drySequenceBreakers: options.drySequenceBreakers.flat(),
    suppressTokens: options.suppressTokens,
    beginSuppressTokens: options.beginSuppressTokens,
    eosTokenId: listOf(options.eosTokenId),
    forcedBosTokenId: listOf(options.forcedBosTokenId),
    forcedEosTokenId: listOf(options.forcedEosTokenId),
  };
  for (const [name, ids] of Object.entries(idLists)) {
    const outside = ids.find((id) => id >= vocabularySize);
    if (outside !== undefined) {
      throw new UsageError(`option \`${name}\`: expected token ids below the vocabulary size ${vocabularySize}, got ${outside}`, {
        hint: "The ids probably belong to another tokenizer.",
      });
    }
  }
  const eosTokenIds = listOf(options.eosTokenId);
  for (const name of needsEos) {
    if (options[name] && eosTokenIds.length === 0) {
      throw new UsageError(`option \`${name}\`: expected eosTokenId to be set as well, got none`, {
        hint: "Set eosTokenId to the id that ends a sequence.",
      });
    }
  }
  if (options.forcedEosTokenId !== null && options.maxLength === null) {
    throw new UsageError("option `forcedEosTokenId`: expected maxLength to be set as well, got null");
  }
}

/** One id, several or none, as a list. */
export function listOf(ids: number | readonly number[] | null): readonly number[] {
  return ids === null ? [] : typeof ids === "number" ? [ids] : ids;
}

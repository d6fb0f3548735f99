// From settings to a grammar for a tokenizer. Grammars and vocabularies are compiled once and shared; a constraint belongs to one request.
import { UsageError } from "../../base/errors.ts";
import { parseOptions } from "../../base/schema.ts";
import { type Tokenizer, tokenBytes } from "../../text/index.ts";
import { type GrammarOptionsInput, grammarOptions } from "../sampling/options.ts";
import { GrammarConstraint } from "./constraint.ts";
import { Grammar } from "./grammar.ts";
import { GrammarVocabulary } from "./vocabulary.ts";

const vocabularies = new WeakMap<Tokenizer, GrammarVocabulary>();

/** The vocabulary of a tokenizer, made once. */
export function grammarVocabulary(tokenizer: Tokenizer): GrammarVocabulary {
  let vocabulary = vocabularies.get(tokenizer);
  if (!vocabulary) {
    vocabulary = new GrammarVocabulary(tokenBytes(tokenizer));
    vocabularies.set(tokenizer, vocabulary);
  }
  return vocabulary;
}

/**
 * The grammar that settings ask for, or undefined when they ask for none.
 * @throws UsageError for a grammar or schema that is wrong, or both at once.
 */
export function grammarOf(options: GrammarOptionsInput): Grammar | undefined {
  const { grammar, grammarRoot, jsonSchema, jsonSchemaStrict } = parseOptions(grammarOptions, options);
  const hasSchema = jsonSchema !== null && jsonSchema !== undefined;
  if (grammar !== null && hasSchema) throw new UsageError("grammar: expected grammar or jsonSchema, got both");
  if (grammar !== null) return Grammar.parse(grammar, grammarRoot);
  return hasSchema ? Grammar.fromJsonSchema(jsonSchema, { strict: jsonSchemaStrict }) : undefined;
}

/**
 * A grammar for one request.
 * @param eosTokenIds default: the tokenizer's end of sequence.
 * @throws UsageError without an id that ends texts.
 */
export function constrain(grammar: Grammar, tokenizer: Tokenizer, eosTokenIds?: readonly number[]): GrammarConstraint {
  const { eos } = tokenizer.specialIds;
  return new GrammarConstraint(grammar, grammarVocabulary(tokenizer), {
    eosTokenIds: eosTokenIds ?? (eos === undefined ? [] : [eos]),
    encode: (text) => tokenizer.encode(text, { addSpecialTokens: false, parseSpecialTokens: false }),
  });
}

/** {@link grammarOf} and {@link constrain} in one. @throws UsageError as they do. */
export function compileGrammar(
  options: GrammarOptionsInput,
  tokenizer: Tokenizer,
  eosTokenIds?: readonly number[],
): GrammarConstraint | undefined {
  const grammar = grammarOf(options);
  return grammar && constrain(grammar, tokenizer, eosTokenIds);
}

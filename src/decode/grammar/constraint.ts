// A grammar over a vocabulary, as a step on logits: forbids the tokens that would leave the language. It depends on the sequence alone, so
// that plain decoding, every node of a tree of drafts and a sequence that was cut back all see the same mask.
import { UsageError } from "../../base/errors.ts";
import { NoTokenLeftError } from "../sampling/candidates.ts";
import { type GrammarStep, numIdsOf, type SamplingContext } from "../sampling/context.ts";
import { dead } from "./automaton.ts";
import type { Grammar } from "./grammar.ts";
import { applyMask, TokenMasks } from "./token-masks.ts";
import type { GrammarVocabulary } from "./vocabulary.ts";

export interface ConstraintOptions {
  /** The ids that end a text; allowed where the grammar is at its end. At least one. */
  eosTokenIds: readonly number[];
  /** The tokenizer's own spelling of a text, for what is forced. Default: the longest tokens first. */
  encode?: (text: string) => ArrayLike<number>;
}

/** Longest text without a choice that is looked for at once. */
const maxForcedBytes = 512;

export class GrammarConstraint implements GrammarStep {
  readonly grammar: Grammar;
  readonly vocabulary: GrammarVocabulary;
  private readonly eos: readonly number[];
  private readonly encode: ConstraintOptions["encode"];
  private readonly masks: TokenMasks;
  /** Ids that were read last, behind the prompt, and the state after each of them; `numKnown` of them count. */
  private ids = new Int32Array(256);
  private states = new Int32Array(257);
  private numKnown = 0;
  private epoch: number;

  /** @throws UsageError without an id that ends texts. */
  constructor(grammar: Grammar, vocabulary: GrammarVocabulary, { eosTokenIds, encode }: ConstraintOptions) {
    if (eosTokenIds.length === 0) {
      throw new UsageError("grammar: expected an id that ends a text, got none", {
        hint: "Set eosTokenIds: without one, generation cannot end where the grammar does.",
      });
    }
    this.grammar = grammar;
    this.vocabulary = vocabulary;
    this.eos = [...new Set(eosTokenIds)];
    this.encode = encode;
    this.masks = TokenMasks.of(grammar.automaton, vocabulary);
    this.epoch = grammar.automaton.epoch;
    this.states[0] = grammar.automaton.start;
  }

  /** Forbids what the grammar does. @throws NoTokenLeftError where no token of the vocabulary can continue. */
  apply(logits_V: Float32Array, context: SamplingContext): void {
    const { automaton } = this.grammar;
    const state = this.stateAt(context);
    // Behind a draft that the grammar forbids nothing matters any more; the end is always a token.
    if (state === dead) {
      applyMask(logits_V, { words: new Uint32Array(0), count: 0, first: -1 }, this.eos);
      return;
    }
    const mask = this.masks.mask(state);
    const isAccepting = automaton.isAccepting(state);
    if (mask.count === 0 && !isAccepting) {
      throw new NoTokenLeftError("grammar: expected a token that can continue the text, got none in the vocabulary", {
        hint: "The grammar asks for characters that the tokenizer cannot spell.",
      });
    }
    applyMask(logits_V, mask, isAccepting ? this.eos : []);
  }

  /**
   * Tokens without an alternative: what follows whatever the model says, at most `limit` of them. (The model may still spell the same text
   * otherwise.)
   */
  forced(context: SamplingContext, limit: number): number[] {
    const { automaton } = this.grammar;
    const tokens: number[] = [];
    let state = this.stateAt(context);
    while (tokens.length < limit && state !== dead) {
      const found = this.forcedTokens(state);
      if (found.length === 0) break;
      for (const token of found) {
        tokens.push(token);
        for (const byte of this.vocabulary.bytesOf(token) as Uint8Array) state = automaton.next(state, byte);
      }
    }
    return tokens.slice(0, limit);
  }

  /** Whether the text may end here. */
  isComplete(context: SamplingContext): boolean {
    const state = this.stateAt(context);
    return state !== dead && this.grammar.automaton.isAccepting(state);
  }

  private forcedTokens(state: number): readonly number[] {
    const { automaton } = this.grammar;
    const text: number[] = [];
    for (let at = state; text.length < maxForcedBytes; ) {
      const byte = automaton.onlyByte(at);
      if (byte < 0) break;
      text.push(byte);
      at = automaton.next(at, byte);
    }
    if (text.length > 0) {
      const spelled = this.spell(text);
      if (spelled) return spelled;
      const token = this.longestToken(text);
      if (token >= 0) return [token];
    }
    const mask = this.masks.mask(state);
    return mask.count === 1 && !automaton.isAccepting(state) ? [mask.first] : [];
  }

  /** The tokenizer's tokens of a text, unless they spell something else (a space before it, say). */
  private spell(text: readonly number[]): readonly number[] | undefined {
    if (!this.encode) return undefined;
    const ids = Array.from(this.encode(Buffer.from(text).toString("utf8")));
    const bytes = Buffer.concat(ids.map((id) => this.vocabulary.bytesOf(id) ?? new Uint8Array(0)));
    return ids.length > 0 && bytes.equals(Buffer.from(text)) ? ids : undefined;
  }

  /** The longest token that begins a text, or −1. */
  private longestToken(text: readonly number[]): number {
    const { bytes, ends, tokens, tokenStarts } = this.vocabulary;
    let [node, longest] = [0, -1];
    for (const byte of text) {
      let child = node + 1;
      while (child < ends[node] && bytes[child] !== byte) child = ends[child];
      if (child >= ends[node]) break;
      node = child;
      if (tokenStarts[node] < tokenStarts[node + 1]) longest = tokens[tokenStarts[node]];
    }
    return longest;
  }

  /** The state after the ids behind the prompt. What is shared with the ids of the last call is not read again. */
  private stateAt(context: SamplingContext): number {
    const { automaton } = this.grammar;
    automaton.tidy();
    if (this.epoch !== automaton.epoch) {
      this.epoch = automaton.epoch;
      this.numKnown = 0;
      this.states[0] = automaton.start;
    }
    const { ids, promptLength } = context;
    const count = Math.max(0, numIdsOf(context) - promptLength);
    if (count > this.ids.length) this.reserve(count);
    const shared = Math.min(count, this.numKnown);
    let known = 0;
    while (known < shared && this.ids[known] === ids[promptLength + known]) known++;
    let state = this.states[known];
    for (; known < count; known++) {
      const id = ids[promptLength + known];
      const isEnd = this.eos.includes(id) && state !== dead && automaton.isAccepting(state);
      // Behind the end there is nothing.
      if (isEnd) state = dead;
      else {
        const bytes = this.vocabulary.bytesOf(id);
        if (bytes === undefined || bytes.length === 0) state = dead;
        else for (const byte of bytes) state = automaton.next(state, byte);
      }
      this.ids[known] = id;
      this.states[known + 1] = state;
    }
    this.numKnown = count;
    return state;
  }

  private reserve(count: number): void {
    const size = 2 ** Math.ceil(Math.log2(count + 1));
    const [ids, states] = [new Int32Array(size), new Int32Array(size + 1)];
    ids.set(this.ids);
    states.set(this.states);
    this.ids = ids;
    this.states = states;
  }
}

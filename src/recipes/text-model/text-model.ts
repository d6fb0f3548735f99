// A language model ready to be spoken to: `const model = await load("…"); for await (const piece of model.generate("Once")) …`. It holds one
// sequence; what a prompt shares with the text before it stays in the cache and is not read again.
import { BackendError, nearest, UsageError } from "../../base/errors.ts";
import { calledElsewhere } from "../../base/names-elsewhere.ts";
import type { Drafter } from "../../decode/drafter.ts";
import { type FinishReason, type GenerationRequest, generate } from "../../decode/generate.ts";
import { compileGrammar, GrammarDrafter } from "../../decode/index.ts";
import { DecoderRunner } from "../../decode/runner.ts";
import { type SamplingOptionsInput, samplingOptions } from "../../decode/sampling/options.ts";
import type { SpeculationSummary } from "../../decode/speculation-metrics.ts";
import type { Verifier } from "../../decode/verifiers/verifier.ts";
import type { DecoderConfig } from "../../models/decoder/config.ts";
import type { InferenceModel } from "../../models/decoder/quantise.ts";
import type { Backend } from "../../runtime/backend.ts";
import { openBackend } from "../../runtime/open.ts";
import { type ChatMessage, continuing, type Tokenizer } from "../../text/index.ts";
import { openDrafterSpec, readsLogitsAlone } from "./drafter-spec.ts";
import { type GenerationSpeed, SpeedMeter } from "./generation-speed.ts";
import { type LoadedModel, type LoadModelOptions, loadModel } from "./load-model.ts";

export interface LoadOptions extends Omit<LoadModelOptions, "onWeights"> {
  /** Threads of ONNX Runtime. Default: the number of physical cores. */
  threads?: number;
  /** A backend that is open already; it stays open after `dispose`. */
  backend?: Backend;
  /** Positions of the cache. Default: the model's context length, at most 4096. */
  capacity?: number;
  /** `lookup`, `suffix`, `draft:<model>`, a folder of trained heads, or a drafter of one's own, which outlives the model. Default none. */
  speculate?: string | Drafter;
  /** A draft model draws its drafts, for verifiers that use their distribution (rejection, block). Default false: most probable tokens. */
  drawDrafts?: boolean;
  /** Tokens of every call, for texts that are equal to the last bit with and without chains of drafts. Default 0: off. */
  exactBlock?: number;
  /** Compile what the first answer needs while the vocabulary is read. False where the model's own runner is not used. Default true. */
  prepare?: boolean;
}

export interface TextOptions {
  /** Default 256. */
  maxNewTokens?: number;
  /** Text that ends the answer. Default none. */
  stop?: readonly string[];
  /** Default 0. */
  seed?: number;
  /** Default: the model's own distribution; `{ doSample: false }` for the most probable tokens. */
  sampling?: SamplingOptionsInput;
  /** A grammar in llama.cpp's notation (GBNF) that the text keeps to. */
  grammar?: string;
  /** A JSON schema (an object, or true for any JSON) that the text is an instance of. */
  jsonSchema?: unknown;
  /** How drafts are verified. Default: lossless. */
  verifier?: Verifier;
  /** Ids that end the answer. Default: those that the checkpoint names. */
  eosTokenIds?: readonly number[];
  signal?: AbortSignal;
}

export interface TextResult {
  readonly text: string;
  readonly ids: readonly number[];
  /** aborted: stopped by a signal, or by a reader that went away. */
  readonly reason: FinishReason | "aborted";
  /** Tokens of the prompt, and those of them that the cache held. */
  readonly promptTokens: number;
  readonly cachedTokens: number;
  /** Of writing, after the first token; 0 where there is no second one. */
  readonly tokensPerSecond: number;
  /** Reading the prompt and writing apart. */
  readonly speed: GenerationSpeed;
  /** Of answers that came to their end. */
  readonly speculation?: SpeculationSummary;
}

/** Loads a model for generation. @throws as {@link loadModel}; BackendError when ONNX Runtime does not load. */
export async function load(source: string, options: LoadOptions = {}): Promise<TextModel> {
  expectKnown("load", options, loadOptionNames);
  const { speculate, exactBlock = 0 } = options;
  const own = options.backend === undefined;
  const backend = options.backend ?? openBackend(options.threads === undefined ? {} : { threads: options.threads }).backend;
  const ownsDrafter = typeof speculate === "string";
  let runner: DecoderRunner | undefined;
  let ready: Promise<void> | undefined;
  let drafter: Drafter | undefined;
  const onWeights = (model: InferenceModel): void => {
    const capacity = options.capacity ?? Math.min(model.config.contextLength, 4096);
    runner = new DecoderRunner(backend, model, { capacity, exactBlock });
    const knowsProgram = speculate === undefined || (typeof speculate === "string" && readsLogitsAlone(speculate));
    if (options.prepare === false || !knowsProgram) return;
    // Weights are packed by a thread of the pool while this one reads the vocabulary.
    ready = runner.compileAhead({ drafts: speculate !== undefined });
    // Awaited below; if the vocabulary cannot be read either, that is what is told.
    ready.catch(() => {});
  };
  try {
    const loaded = await loadModel(source, { ...options, onWeights });
    await ready;
    const made = runner as unknown as DecoderRunner;
    const target = { backend, model: loaded.model, tokenizer: loaded.tokenizer, capacity: made.capacity };
    drafter =
      typeof speculate === "string"
        ? await openDrafterSpec(speculate, target, { ...options, weights: "stored", draw: options.drawDrafts })
        : speculate;
    return new TextModel(loaded, made, backend, { own, drafter, ownsDrafter });
  } catch (error) {
    if (ownsDrafter) drafter?.dispose();
    runner?.dispose();
    if (own) backend.dispose();
    throw error;
  }
}

export class TextModel {
  readonly loaded: LoadedModel;
  readonly runner: DecoderRunner;
  readonly drafter: Drafter | undefined;
  readonly backend: Backend;
  readonly #ownsBackend: boolean;
  readonly #ownsDrafter: boolean;
  #result: TextResult | undefined;
  #busy = false;

  constructor(
    loaded: LoadedModel,
    runner: DecoderRunner,
    backend: Backend,
    { own, drafter, ownsDrafter }: { own: boolean; drafter: Drafter | undefined; ownsDrafter: boolean },
  ) {
    this.loaded = loaded;
    this.runner = runner;
    this.backend = backend;
    this.#ownsBackend = own;
    this.#ownsDrafter = ownsDrafter;
    this.drafter = drafter;
  }

  get tokenizer(): Tokenizer {
    return this.loaded.tokenizer;
  }

  get config(): DecoderConfig {
    return this.loaded.model.config;
  }

  /** What the last call produced, also when it was stopped. */
  get lastResult(): TextResult | undefined {
    return this.#result;
  }

  /**
   * Text behind the prompt, piece by piece as it is certain.
   * @param prompt text, which is continued; or token ids, behind which a text of its own begins, as an answer does in a chat.
   * @throws UsageError for a prompt that is empty or too long, BackendError while another answer is being written.
   */
  async *generate(prompt: string | readonly number[] | Int32Array, options: TextOptions = {}): AsyncGenerator<string> {
    if (this.#busy) throw new BackendError("TextModel: expected one answer at a time, got a second call", { hint: "Await the first one." });
    expectKnown("generate", options, textOptionNames);
    const { maxNewTokens = 256 } = options;
    if (!Number.isInteger(maxNewTokens) || maxNewTokens < 0)
      throw new UsageError(`maxNewTokens: expected a whole number of at least 0, got ${maxNewTokens}`);
    const ids = typeof prompt === "string" ? this.encode(prompt) : Int32Array.from(prompt);
    // The cache knows its tokens, whoever wrote them: also after an abort, and for a prompt from disk.
    const cachedLength = this.runner.heldLength(0, ids);
    const eosTokenIds = options.eosTokenIds ?? this.loaded.eosTokenIds;
    const grammar = compileGrammar({ grammar: options.grammar ?? null, jsonSchema: options.jsonSchema }, this.tokenizer, eosTokenIds);
    // What a grammar leaves no choice about need not be computed token by token.
    const drafter = grammar ? new GrammarDrafter(this.drafter ? { otherwise: this.drafter } : {}) : this.drafter;
    const request: GenerationRequest = {
      ids,
      ...(grammar ? { grammar } : {}),
      cachedLength,
      sampling: options.sampling ?? {},
      maxNewTokens,
      stop: options.stop ?? [],
      seed: options.seed ?? 0,
      eosTokenIds,
    };
    this.#busy = true;
    const meter = new SpeedMeter(ids.length - cachedLength);
    const result = (told: Pick<TextResult, "text" | "ids" | "reason" | "speculation">): TextResult => {
      const speed = meter.result();
      return { ...told, promptTokens: ids.length, cachedTokens: cachedLength, tokensPerSecond: speed.generationTokensPerSecond, speed };
    };
    let text = "";
    const written: number[] = [];
    let isOpen = true;
    try {
      const tokenizer = typeof prompt === "string" ? continuing(this.tokenizer, ids) : this.tokenizer;
      const settings = { tokenizer, signal: options.signal, drafter, verifier: options.verifier, onStep: meter.onStep };
      for await (const event of generate(this.runner, [request], settings)) {
        meter.see(event);
        if (event.kind === "finish") {
          const { speculation } = event;
          this.#result = result({ text: event.text, ids: event.ids, reason: event.reason, ...(speculation ? { speculation } : {}) });
          isOpen = false;
          continue;
        }
        if (event.kind === "token") written.push(event.id);
        text += event.text;
        if (event.text) yield event.text;
      }
    } catch (error) {
      // A prompt that was refused has no result.
      if (!options.signal?.aborted) isOpen = false;
      throw error;
    } finally {
      this.#busy = false;
      if (isOpen) this.#result = result({ text, ids: written, reason: "aborted" });
    }
  }

  /** The whole text behind a prompt. */
  async complete(prompt: string | readonly number[] | Int32Array, options: TextOptions = {}): Promise<TextResult> {
    for await (const _ of this.generate(prompt, options));
    return this.#result as TextResult;
  }

  /**
   * The answer to a conversation, by the checkpoint's chat template.
   * @throws UsageError for a model without a chat template.
   */
  chat(messages: readonly ChatMessage[], options: TextOptions = {}): AsyncGenerator<string> {
    return this.generate(this.chatIds(messages), options);
  }

  /** Token ids of a conversation up to where the answer begins. */
  chatIds(messages: readonly ChatMessage[]): Int32Array {
    const { chatTemplate, name } = this.loaded;
    if (!chatTemplate)
      throw new UsageError(`${name}: expected a model with a chat template, got none`, {
        hint: "Use generate with a prompt, or a model that was tuned for conversations.",
      });
    // The template writes special tokens itself.
    return this.tokenizer.encode(chatTemplate.render(messages, { addGenerationPrompt: true }), { addSpecialTokens: false });
  }

  /** Ids of a prompt; of an empty one the token that stands at the beginning of a text. @throws UsageError when there is none. */
  encode(prompt: string): Int32Array {
    const ids = this.tokenizer.encode(prompt);
    if (ids.length > 0) return ids;
    const beginning = this.tokenizer.specialIds.bos ?? this.tokenizer.specialIds.eos;
    if (beginning !== undefined) return Int32Array.of(beginning);
    throw new UsageError("prompt: expected some text, got none, and the tokenizer has no token for the beginning of a text", {
      hint: "Give a prompt.",
    });
  }

  /** Releases what the model opened: its programs, its backend, its drafter. A backend or drafter that was handed to it stays. */
  dispose(): void {
    if (this.#ownsDrafter) this.drafter?.dispose();
    this.runner.dispose();
    if (this.#ownsBackend) this.backend.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

const textOptionNames: readonly (keyof TextOptions)[] = [
  "maxNewTokens",
  "stop",
  "seed",
  "sampling",
  "grammar",
  "jsonSchema",
  "verifier",
  "eosTokenIds",
  "signal",
];

const loadOptionNames: readonly (keyof LoadOptions)[] = [
  "tokenizer",
  "weights",
  "onProgress",
  "offline",
  "signal",
  "threads",
  "backend",
  "capacity",
  "speculate",
  "drawDrafts",
  "exactBlock",
  "prepare",
];

/** Without types an option that is misspelt or misplaced would be ignored in silence. */
function expectKnown(call: string, options: object, names: readonly string[]): void {
  for (const name of Object.keys(options)) {
    if (names.includes(name)) continue;
    const near = calledElsewhere(name, names) ?? nearest(name, names);
    const hint = name in samplingOptions.shape ? `Write sampling: { ${name}: … }.` : near && `Did you mean ${near}?`;
    throw new UsageError(`${call}: expected ${names.join(", ")}, got ${name}`, hint ? { hint } : {});
  }
}

// Conversations as text: Jinja templates as models ship them, rendered by @huggingface/jinja within bounds of size, steps and time, because
// a template is code from outside. What surrounds a template follows transformers' apply_chat_template.
import { Environment, Interpreter } from "@huggingface/jinja";
import { FormatError, LongwaveError, UsageError } from "../base/errors.ts";
import { formatDate } from "./date-format.ts";
import { type ParsedTemplate, parseTemplate, TemplateSyntaxError } from "./template-lines.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** A turn of a conversation. Templates read further fields (`tool_calls`, `name`, `reasoning_content` …) as they are. */
export interface ChatMessage {
  role: string;
  content?: string | readonly Readonly<Record<string, unknown>>[] | null;
  readonly [field: string]: unknown;
}

export interface ChatOptions {
  /** Tools as JSON schemas. Default: none. */
  tools?: readonly unknown[];
  /** Documents for answers that cite them. Default: none. */
  documents?: readonly unknown[];
  /** End with the beginning of an answer. Default false. */
  addGenerationPrompt?: boolean;
  /** Leave the last message open, so that generation continues it. Default false. */
  continueFinalMessage?: boolean;
  /** The template's own variables (`enable_thinking`, for instance). */
  variables?: Readonly<Record<string, unknown>>;
  /** What `strftime_now` tells. Default: the time of the call. */
  now?: Date;
}

export interface ChatFormatOptions {
  /** Shown in errors. Default "chat template". */
  name?: string;
  /** `bos_token`, `eos_token` and the like, by name. */
  tokens?: Readonly<Record<string, string>>;
}

export interface RenderedChat {
  text: string;
  /** Ranges [start, end) of the text, in UTF-16 code units, that `{% generation %}` marks: what the assistant wrote. */
  generated: readonly (readonly [start: number, end: number])[];
}

export interface EncodedChat {
  ids: Int32Array<ArrayBuffer>;
  /** [N]: 1 for tokens inside of `{% generation %}`. All 0 when the template has no such marks. */
  assistantMask: Uint8Array<ArrayBuffer>;
}

/** Bounds of what a template may do. */
const maxTemplateLength = 1 << 18;
const maxWhiteSpaceRun = 4096;
const maxSteps = 2_000_000;
const maxTextLength = 1 << 26;
const maxListLength = 1 << 20;
const maxMilliseconds = 5_000;
const maxDepth = 400;

/** Code points that no text has (they are reserved for use inside of programs): where generated text begins, ends, and is to be continued. */
const [generationStart, generationEnd, continuation] = ["\ufdd0", "\ufdd1", "\ufdd2"];
const markers = /[\ufdd0-\ufdd2]/;

/** One template. `ChatTemplate` is what a model has: one of them, or several by name. */
export class ChatFormat {
  readonly name: string;
  /** The template marks what the assistant writes. */
  readonly marksGeneration: boolean;
  readonly source: string;
  private readonly parsed: ParsedTemplate;
  private readonly tokens: Readonly<Record<string, string>>;

  /** @throws FormatError naming template and line when the template is broken. */
  constructor(source: string, { name = "chat template", tokens = {} }: ChatFormatOptions = {}) {
    this.name = name;
    this.source = source;
    this.tokens = tokens;
    if (source.length > maxTemplateLength || /\s{4096}/.test(source)) {
      throw new FormatError(
        `${name}: expected at most ${maxTemplateLength} characters and ${maxWhiteSpaceRun} of white space in a row, got ${source.length}`,
      );
    }
    if (markers.test(source)) throw new FormatError(`${name}: expected text, got the noncharacters U+FDD0 to U+FDD2`);
    const marked = source.replace(/\{%(-?)\s*(end)?generation\s*(-?)%\}/g, (_, left: string, end: string | undefined, right: string) => {
      return `{%${left} if true %}${end ? generationEnd : generationStart}{% endif ${right}%}`;
    });
    this.marksGeneration = marked !== source;
    try {
      this.parsed = parseTemplate(marked);
    } catch (cause) {
      if (cause instanceof TemplateSyntaxError) throw this.broken(cause.message, cause.line, cause);
      if (cause instanceof RangeError) throw this.broken("too many nested blocks", undefined, cause);
      throw cause;
    }
  }

  /**
   * The conversation as text.
   * @throws UsageError where the template refuses the conversation (`raise_exception`); FormatError when it cannot be rendered or exceeds
   * its bounds.
   */
  render(messages: readonly ChatMessage[], options: ChatOptions = {}): string {
    return this.renderMarked(messages, options).text;
  }

  /** The same with the ranges that the assistant wrote. @throws as {@link render}. */
  renderMarked(messages: readonly ChatMessage[], options: ChatOptions = {}): RenderedChat {
    const { continueFinalMessage = false, addGenerationPrompt = false } = options;
    if (continueFinalMessage && addGenerationPrompt) {
      throw new UsageError("chat: expected continueFinalMessage or addGenerationPrompt, got both", {
        hint: "One leaves the last message open, the other begins a new one.",
      });
    }
    if (markers.test(JSON.stringify([messages, options.tools, options.documents, options.variables]))) {
      throw new UsageError("chat: expected text, got the noncharacters U+FDD0 to U+FDD2", { hint: "Remove them from the messages." });
    }
    if (!continueFinalMessage) return readMarks(this.run(messages, options));
    const open = withOpenEnd(messages);
    return readMarks(this.cutOpenEnd(this.run(open.messages, options), open.message));
  }

  /**
   * The conversation as ids, without what the tokenizer itself puts around a text: the template writes these tokens out.
   * @throws as {@link render}.
   */
  encode(tokenizer: Tokenizer, messages: readonly ChatMessage[], options: ChatOptions = {}): EncodedChat {
    const { text, generated } = this.renderMarked(messages, options);
    if (generated.length === 0) {
      const ids = tokenizer.encode(text, { addSpecialTokens: false });
      return { ids, assistantMask: new Uint8Array(ids.length) };
    }
    const { ids, offsets } = tokenizer.encodeWithOffsets(text, { addSpecialTokens: false });
    const assistantMask = new Uint8Array(ids.length);
    let range = 0;
    for (let i = 0; i < ids.length; i++) {
      const [start, end] = [offsets[2 * i], offsets[2 * i + 1]];
      while (range < generated.length && generated[range][1] <= start) range++;
      if (range < generated.length && end > generated[range][0]) assistantMask[i] = 1;
    }
    return { ids, assistantMask };
  }

  private run(messages: readonly ChatMessage[], options: ChatOptions): string {
    const { tools = null, documents = null, addGenerationPrompt = false, variables = {}, now = new Date() } = options;
    const environment = new Environment();
    const values: Record<string, unknown> = {
      false: false,
      true: true,
      none: null,
      False: false,
      True: true,
      None: null,
      ...this.tokens,
      ...variables,
      messages,
      tools,
      documents,
      add_generation_prompt: addGenerationPrompt,
      raise_exception: (message: unknown) => {
        throw new Refusal(String(message));
      },
      strftime_now: (format: unknown) => formatDate(now, String(format)),
      range: boundedRange,
    };
    for (const [name, value] of Object.entries(values)) if (value !== undefined) environment.set(name, value);
    const interpreter = new BoundedInterpreter(environment, this.parsed.lines);
    try {
      return String(interpreter.run(this.parsed.program).value);
    } catch (cause) {
      if (cause instanceof Refusal) {
        throw new UsageError(`${this.name}: ${cause.message}`, { cause, hint: "The template refuses this conversation." });
      }
      if (cause instanceof LongwaveError) throw cause;
      const message = cause instanceof RangeError ? "calls that are nested too deeply" : (cause as Error).message;
      throw this.broken(message, interpreter.line, cause);
    }
  }

  private broken(message: string, line: number | undefined, cause: unknown): FormatError {
    return new FormatError(`${this.name}: ${line === undefined ? "" : `line ${line}: `}${message}`, {
      cause,
      hint: "Mend the model's chat template, or give one of your own.",
    });
  }

  /** The text up to the place that is to be continued. */
  private cutOpenEnd(text: string, message: string): string {
    const at = text.lastIndexOf(continuation);
    if (at < 0 || !text.includes(message.trim())) {
      throw new UsageError(`${this.name}: expected the last message in the text, got a text without it`, {
        hint: "The template changes the last message, so that it cannot be continued; leave continueFinalMessage out.",
      });
    }
    // A template that trims messages has dropped the space behind the mark.
    return text.startsWith(`${continuation} `, at) ? text.slice(0, at) : text.slice(0, at).trimEnd();
  }
}

/** What `raise_exception` throws. */
class Refusal extends Error {}

/** The messages with a mark at the end of the last one. */
function withOpenEnd(messages: readonly ChatMessage[]): { messages: ChatMessage[]; message: string } {
  const last = messages.at(-1);
  const mark = `${continuation} `;
  const wrong = (): UsageError =>
    new UsageError("chat: expected a last message with text to continue, got none", { hint: "Leave continueFinalMessage out." });
  if (!last) throw wrong();
  if (typeof last.content === "string")
    return { messages: [...messages.slice(0, -1), { ...last, content: last.content + mark }], message: last.content };
  if (!Array.isArray(last.content)) throw wrong();
  const part = last.content.findLastIndex(({ text }) => typeof text === "string");
  if (part < 0) throw wrong();
  const content = last.content.map((item, i) => (i === part ? { ...item, text: item.text + mark } : item));
  return { messages: [...messages.slice(0, -1), { ...last, content }], message: last.content[part].text };
}

/** Takes the marks of generated text out. */
function readMarks(marked: string): RenderedChat {
  const generated: [number, number][] = [];
  let text = "";
  let start = -1;
  for (const part of marked.split(/([\ufdd0\ufdd1])/)) {
    if (part === generationStart) start = text.length;
    else if (part === generationEnd) {
      if (start >= 0 && text.length > start) generated.push([start, text.length]);
      start = -1;
    } else text += part;
  }
  // A message that is to be continued has no end.
  if (start >= 0 && text.length > start) generated.push([start, text.length]);
  return { text, generated };
}

function boundedRange(start: number, stop?: number, step = 1): number[] {
  const [from, to] = stop === undefined ? [0, start] : [start, stop];
  const length = Math.ceil((to - from) / step);
  if (!(Math.abs(length) <= maxListLength)) throw new Error(`range: expected at most ${maxListLength} numbers, got ${length}`);
  return Array.from({ length: Math.max(0, length) }, (_, i) => from + i * step);
}

/** What is used of the engine's interpreter, whose declarations TypeScript cannot resolve. */
interface Evaluator {
  run(program: object): { value: unknown };
  evaluate(statement: object | undefined, environment: object): { value: unknown };
}
const BaseInterpreter = Interpreter as unknown as new (environment: object) => Evaluator;

/** Counts steps and sizes, and knows the line. */
class BoundedInterpreter extends BaseInterpreter {
  line: number | undefined;
  #numSteps = 0;
  #depth = 0;
  readonly #lines: ReadonlyMap<object, number>;
  readonly #end = performance.now() + maxMilliseconds;

  constructor(environment: object, lines: ReadonlyMap<object, number>) {
    super(environment);
    this.#lines = lines;
  }

  override evaluate(statement: object | undefined, environment: object): { value: unknown } {
    if (statement) this.line = this.#lines.get(statement) ?? this.line;
    if (++this.#numSteps > maxSteps) throw new Error(`expected at most ${maxSteps} steps, got more`);
    if ((this.#numSteps & 1023) === 0 && performance.now() > this.#end) throw new Error(`expected at most ${maxMilliseconds} ms, got more`);
    if (this.#depth >= maxDepth) throw new Error(`expected at most ${maxDepth} nested calls, got more`);
    this.#depth++;
    const result = super.evaluate(statement, environment);
    this.#depth--;
    const { value } = result;
    const limit = typeof value === "string" ? maxTextLength : maxListLength;
    const length = typeof value === "string" || Array.isArray(value) ? value.length : 0;
    if (length > limit)
      throw new Error(`expected texts of at most ${maxTextLength} characters and lists of ${maxListLength}, got ${length}`);
    return result;
  }
}

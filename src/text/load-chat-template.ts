// Finds the chat templates of a model: chat_template.jinja, additional_chat_templates/, chat_template.json, or the chat_template of
// tokenizer_config.json (one text, or a list of named ones).
import { existsSync, readdirSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { FormatError, nearest, UsageError } from "../base/errors.ts";
import { show } from "../base/schema.ts";
import { ChatFormat, type ChatMessage, type ChatOptions, type EncodedChat, type RenderedChat } from "./chat-template.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { isObject, type JsonObject, readBoundedFile, readJsonFile } from "./tokenizer-file.ts";

const maxConfigBytes = 16 << 20;
const maxTemplateBytes = 1 << 20;
const maxTemplates = 64;

export interface NamedChatOptions extends ChatOptions {
  /** Name of the template. Default: `tool_use` where there are tools and it exists, else `default` or the only one. */
  template?: string;
}

/** The templates of a model by name. The one that most conversations want is called `default`. */
export class ChatTemplate {
  private readonly sources: ReadonlyMap<string, string>;
  private readonly tokens: Readonly<Record<string, string>>;
  private readonly label: string;
  private readonly compiled = new Map<string, ChatFormat>();

  /**
   * @param sources Jinja by name, or the one template.
   * @param tokens special tokens by the name that templates know (`bos_token`).
   * @param label names the source in errors.
   */
  constructor(sources: ReadonlyMap<string, string> | string, tokens: Readonly<Record<string, string>> = {}, label = "chat template") {
    this.sources = typeof sources === "string" ? new Map([["default", sources]]) : sources;
    this.tokens = tokens;
    this.label = label;
  }

  /**
   * The chat templates in a model's folder (or beside one of its files), or undefined when it has none.
   * @throws FormatError when a file is damaged.
   */
  static load(path: string): ChatTemplate | undefined {
    const directory = statSync(path, { throwIfNoEntry: false })?.isFile() ? dirname(path) : path;
    const read = (name: string): JsonObject => {
      const file = join(directory, name);
      return existsSync(file) ? readJsonFile(file, maxConfigBytes) : {};
    };
    const config = { ...read("special_tokens_map.json"), ...read("tokenizer_config.json") };
    const sources = namedTemplates(read("chat_template.json").chat_template ?? config.chat_template, `${directory}: chat_template`);
    const readText = (file: string): string => Buffer.from(readBoundedFile(file, maxTemplateBytes)).toString("utf8");
    const single = join(directory, "chat_template.jinja");
    if (existsSync(single)) sources.set("default", readText(single));
    const more = join(directory, "additional_chat_templates");
    if (existsSync(more)) {
      for (const name of readdirSync(more).sort().slice(0, maxTemplates)) {
        if (name.endsWith(".jinja")) sources.set(name.slice(0, -".jinja".length), readText(join(more, name)));
      }
    }
    return sources.size === 0 ? undefined : new ChatTemplate(sources, templateTokens(config), `${directory}: chat template`);
  }

  /** The chat templates of a parsed tokenizer_config.json, or undefined. @throws FormatError. */
  static fromConfig(config: JsonObject, label = "tokenizer_config.json"): ChatTemplate | undefined {
    const sources = namedTemplates(config.chat_template, `${label}: chat_template`);
    return sources.size === 0 ? undefined : new ChatTemplate(sources, templateTokens(config), `${label}: chat template`);
  }

  get names(): string[] {
    return [...this.sources.keys()];
  }

  /**
   * The conversation as text.
   * @throws UsageError where the template refuses the conversation (`raise_exception`) or does not exist; FormatError when it is broken
   * (with its name and line) or exceeds its bounds.
   */
  render(messages: readonly ChatMessage[], options: NamedChatOptions = {}): string {
    return this.renderMarked(messages, options).text;
  }

  /** The same with the ranges that the assistant wrote. @throws as {@link render}. */
  renderMarked(messages: readonly ChatMessage[], { template, ...options }: NamedChatOptions = {}): RenderedChat {
    return this.format(template, (options.tools?.length ?? 0) > 0).renderMarked(messages, options);
  }

  /** The conversation as ids, and which of them the assistant wrote. @throws as {@link render}. */
  encode(tokenizer: Tokenizer, messages: readonly ChatMessage[], { template, ...options }: NamedChatOptions = {}): EncodedChat {
    return this.format(template, (options.tools?.length ?? 0) > 0).encode(tokenizer, messages, options);
  }

  /** One template, compiled. @throws UsageError for a name that does not exist; FormatError for a broken template. */
  format(name?: string, hasTools = false): ChatFormat {
    const { names } = this;
    const chosen = name ?? (hasTools && names.includes("tool_use") ? "tool_use" : names.length === 1 ? names[0] : "default");
    const source = this.sources.get(chosen);
    if (source === undefined) {
      const near = nearest(chosen, names);
      throw new UsageError(`chat template: expected one of ${names.join(", ")}, got ${chosen}`, {
        hint: near === undefined ? "Choose a template by its name." : `Did you mean ${near}?`,
      });
    }
    let format = this.compiled.get(chosen);
    if (!format) {
      const label = names.length === 1 ? this.label : `${this.label} (${chosen})`;
      format = new ChatFormat(source, { name: label, tokens: this.tokens });
      this.compiled.set(chosen, format);
    }
    return format;
  }
}

function namedTemplates(value: unknown, label: string): Map<string, string> {
  const sources = new Map<string, string>();
  if (value === undefined || value === null) return sources;
  if (typeof value === "string") return sources.set("default", value);
  if (!Array.isArray(value) || value.length > maxTemplates)
    throw new FormatError(`${label}: expected a text or a list of named templates, got ${show(value)}`);
  for (const entry of value) {
    if (!isObject(entry) || typeof entry.name !== "string" || typeof entry.template !== "string")
      throw new FormatError(`${label}: expected { name, template }, got ${show(entry)}`);
    sources.set(entry.name, entry.template);
  }
  return sources;
}

/** `bos_token` and the like, which are written as text or as an object with `content`. */
function templateTokens(config: JsonObject): Record<string, string> {
  const tokens: Record<string, string> = {};
  for (const [key, value] of Object.entries(config)) {
    if (!key.endsWith("_token") || key.startsWith("add_")) continue;
    if (typeof value === "string") tokens[key] = value;
    else if (isObject(value) && typeof value.content === "string") tokens[key] = value.content;
  }
  return tokens;
}

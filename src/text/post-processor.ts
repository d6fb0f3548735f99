// What encoding puts around a text or a pair of texts: the post-processor of a tokenizer.json, and the settings add_bos_token and
// add_eos_token of tokenizer_config.json, which win over it.
import { FormatError } from "../base/errors.ts";
import { show } from "../base/schema.ts";
import { byteCharacters } from "./byte-alphabet.ts";
import type { SpecialIds } from "./tokenizer.ts";
import { isObject, type JsonObject, type TokenizerFile } from "./tokenizer-file.ts";

/** A token that is added, or the place of one of the texts (0 or 1). */
export type TemplateItem = { readonly id: number; readonly typeId: number } | { readonly text: 0 | 1; readonly typeId: number };

export interface PostProcessor {
  readonly single: readonly TemplateItem[];
  readonly pair: readonly TemplateItem[];
  /** White space at the ends of a token is no part of its range. */
  readonly trim: { readonly addPrefixSpace: boolean } | undefined;
}

const plain: PostProcessor = {
  single: [{ text: 0, typeId: 0 }],
  pair: [
    { text: 0, typeId: 0 },
    { text: 1, typeId: 1 },
  ],
  trim: undefined,
};

const maxNesting = 16;
const wrong = (expected: string, got: unknown): FormatError =>
  new FormatError(`tokenizer post_processor: expected ${expected}, got ${show(got)}`, {
    hint: "Expected the tokenizer.json of Hugging Face's tokenizers library.",
  });

/** @param config tokenizer_config.json. @throws FormatError for a post-processor that is not understood. */
export function makePostProcessor(file: TokenizerFile, config: JsonObject | undefined, { bos, eos }: SpecialIds): PostProcessor {
  const made = processorOf(file.json.post_processor ?? null, file, 0);
  const { add_bos_token: addBos, add_eos_token: addEos } = config ?? {};
  let { single, pair } = made;
  if (bos !== undefined && typeof addBos === "boolean") [single, pair] = [withBos(single, bos, addBos), withBos(pair, bos, addBos)];
  if (eos !== undefined && typeof addEos === "boolean") [single, pair] = [withEos(single, eos, addEos), withEos(pair, eos, addEos)];
  return { ...made, single, pair };
}

const isToken = (item: TemplateItem, id: number): boolean => "id" in item && item.id === id;

function withBos(items: readonly TemplateItem[], id: number, wanted: boolean): readonly TemplateItem[] {
  const last = items.findLastIndex((item) => "text" in item);
  if (!wanted) return items.filter((item, at) => !isToken(item, id) || at > last);
  if (items.slice(0, last).some((item) => isToken(item, id))) return items;
  return items.flatMap((item) => ("text" in item ? [{ id, typeId: item.typeId }, item] : [item]));
}

function withEos(items: readonly TemplateItem[], id: number, wanted: boolean): readonly TemplateItem[] {
  const first = items.findIndex((item) => "text" in item);
  if (!wanted) return items.filter((item, at) => !isToken(item, id) || at < first);
  if (items.slice(first).some((item) => isToken(item, id))) return items;
  return items.flatMap((item) => ("text" in item ? [item, { id, typeId: item.typeId }] : [item]));
}

function processorOf(processor: unknown, file: TokenizerFile, depth: number): PostProcessor {
  if (!isObject(processor)) return plain;
  if (depth > maxNesting) throw wrong("fewer nested processors", processor.type);
  switch (processor.type) {
    case "ByteLevel":
      return { ...plain, trim: trimOf(processor) };
    case "Sequence": {
      if (!Array.isArray(processor.processors)) throw wrong("a list `processors`", processor.processors);
      return processor.processors.map((part) => processorOf(part, file, depth + 1)).reduce(chain, plain);
    }
    case "TemplateProcessing":
      return { single: templateOf(processor.single, processor, file), pair: pairOf(processor, file), trim: undefined };
    case "BertProcessing":
    case "RobertaProcessing": {
      const isBert = processor.type === "BertProcessing";
      const [cls, sep] = [pairId(processor.cls, file), pairId(processor.sep, file)];
      const first: TemplateItem[] = [
        { id: cls, typeId: 0 },
        { text: 0, typeId: 0 },
        { id: sep, typeId: 0 },
      ];
      const second: TemplateItem[] = isBert
        ? [
            { text: 1, typeId: 1 },
            { id: sep, typeId: 1 },
          ]
        : [
            { id: sep, typeId: 0 },
            { text: 1, typeId: 0 },
            { id: sep, typeId: 0 },
          ];
      return { single: first, pair: [...first, ...second], trim: isBert ? undefined : trimOf(processor) };
    }
    default:
      throw wrong("a known type", processor.type);
  }
}

const trimOf = ({ trim_offsets, add_prefix_space }: JsonObject): PostProcessor["trim"] =>
  trim_offsets === false ? undefined : { addPrefixSpace: add_prefix_space !== false };

/** One processor after another: the second one's template goes around what the first one made. */
function chain(first: PostProcessor, second: PostProcessor): PostProcessor {
  const inner = (item: TemplateItem): readonly TemplateItem[] => ("text" in item && item.text === 0 ? first.single : [item]);
  const isPlain = second.pair.every((item) => "text" in item);
  return { single: second.single.flatMap(inner), pair: isPlain ? first.pair : second.pair, trim: second.trim ?? first.trim };
}

function pairOf(processor: JsonObject, file: TokenizerFile): TemplateItem[] {
  if (processor.pair !== undefined && processor.pair !== null) return templateOf(processor.pair, processor, file);
  const single = templateOf(processor.single, processor, file);
  return single.flatMap((item): TemplateItem[] => ("text" in item ? [item, { text: 1, typeId: 1 }] : [item]));
}

function templateOf(template: unknown, { special_tokens }: JsonObject, file: TokenizerFile): TemplateItem[] {
  if (!Array.isArray(template)) throw wrong("a list of pieces as template", template);
  return template.flatMap((item): TemplateItem[] => {
    const sequence = isObject(item) && isObject(item.Sequence) ? item.Sequence : undefined;
    if (sequence) return [{ text: sequence.id === "B" ? 1 : 0, typeId: typeIdOf(sequence.type_id) }];
    const special = isObject(item) && isObject(item.SpecialToken) ? item.SpecialToken : undefined;
    if (!special || typeof special.id !== "string") throw wrong("SpecialToken or Sequence in the template", item);
    const name = special.id;
    const entry = isObject(special_tokens) ? special_tokens[name] : undefined;
    const ids: unknown[] = isObject(entry) && Array.isArray(entry.ids) ? entry.ids : [file.vocab.get(name)];
    return ids.map((id) => {
      if (typeof id !== "number" || !Number.isInteger(id) || id < 0 || id >= file.vocabSize)
        throw wrong(`an id of ${show(name)} within the vocabulary`, id);
      return { id, typeId: typeIdOf(special.type_id) };
    });
  });
}

function typeIdOf(value: unknown): number {
  if (value === undefined) return 0;
  if (typeof value !== "number" || !Number.isInteger(value) || value < 0 || value > 255) throw wrong("a type_id from 0 to 255", value);
  return value;
}

function pairId(pair: unknown, file: TokenizerFile): number {
  const id: unknown = Array.isArray(pair) ? pair[1] : undefined;
  if (typeof id !== "number" || !Number.isInteger(id) || id < 0 || id >= file.vocabSize) throw wrong("[token, id]", pair);
  return id;
}

const spaceByte = byteCharacters[0x20];

/**
 * How many characters of white space begin and end a byte-level token. A space that encoding put before the text counts as part of it.
 * @param isFirst the token begins its text.
 */
export function spacesAround(token: string, isFirst: boolean, addPrefixSpace: boolean): readonly [leading: number, trailing: number] {
  const characters = [...token];
  const isSpace = (character: string): boolean => character === spaceByte || /^\p{White_Space}$/u.test(character);
  let leading = characters.findIndex((character) => !isSpace(character));
  if (leading < 0) leading = characters.length;
  const trailing = characters.length - 1 - characters.findLastIndex((character) => !isSpace(character));
  return [isFirst && addPrefixSpace ? Math.max(0, leading - 1) : leading, trailing];
}

// Which tokens begin, end and pad a sequence, and what is put around a text: read from tokenizer.json's post-processor and from the
// names in tokenizer_config.json or special_tokens_map.json.
import { FormatError } from "../base/errors.ts";
import { show } from "../base/schema.ts";
import type { SpecialIds } from "./tokenizer.ts";
import { isObject, type JsonObject, type TokenizerFile } from "./tokenizer-file.ts";

/** Ids that encoding puts before and after a text. */
export interface Frame {
  before: readonly number[];
  after: readonly number[];
}

/** Names that the well-known model families use, for files that name no roles. First match wins. */
const wellKnown: Record<Role, readonly string[]> = {
  bos: ["<|begin_of_text|>", "<s>", "<bos>", "<|bos|>", "<|startoftext|>", "<｜begin▁of▁sentence｜>"],
  eos: ["<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "<|endoftext|>", "<｜end▁of▁sentence｜>", "<|im_end|>"],
  pad: ["<pad>", "<|pad|>", "[PAD]"],
  unk: ["<unk>", "<|unk|>", "[UNK]"],
};

type Role = "bos" | "eos" | "pad" | "unk";

/** @param config tokenizer_config.json over special_tokens_map.json; undefined when there is neither. */
export function findSpecialIds(file: TokenizerFile, config: JsonObject | undefined): SpecialIds {
  const special = new Set(file.addedTokens.filter((token) => token.special).map((token) => token.id));
  const find = (role: Role): number | undefined => {
    if (config !== undefined && `${role}_token` in config) {
      const name = tokenName(config[`${role}_token`]);
      return name === undefined ? undefined : file.vocab.get(name);
    }
    for (const name of wellKnown[role]) {
      const id = file.vocab.get(name);
      if (id !== undefined && special.has(id)) return id;
    }
    return undefined;
  };
  const roles = { bos: find("bos"), eos: find("eos"), pad: find("pad"), unk: find("unk") ?? modelUnknown(file) };
  for (const id of [roles.bos, roles.eos, roles.pad]) if (id !== undefined) special.add(id);
  return { ...roles, all: [...special].sort((a, b) => a - b) };
}

/** A token's name, which configuration files write as a string or as an object with `content`. */
function tokenName(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  return isObject(value) && typeof value.content === "string" ? value.content : undefined;
}

function modelUnknown({ model, vocab }: TokenizerFile): number | undefined {
  if (typeof model.unk_id === "number") return model.unk_id;
  return typeof model.unk_token === "string" ? vocab.get(model.unk_token) : undefined;
}

/**
 * What encoding puts around a text. An explicit `add_bos_token` or `add_eos_token` in the configuration wins over the post-processor.
 * @throws FormatError for a post-processor that is not understood.
 */
export function findFrame(file: TokenizerFile, config: JsonObject | undefined, { bos, eos }: SpecialIds): Frame {
  const frame = frameOf(file.json.post_processor ?? null, file);
  const { add_bos_token: addBos, add_eos_token: addEos } = config ?? {};
  let { before, after } = frame;
  if (bos !== undefined && addBos === true && !before.includes(bos)) before = [bos, ...before];
  if (bos !== undefined && addBos === false) before = before.filter((id) => id !== bos);
  if (eos !== undefined && addEos === true && !after.includes(eos)) after = [...after, eos];
  if (eos !== undefined && addEos === false) after = after.filter((id) => id !== eos);
  return { before, after };
}

function frameOf(processor: unknown, file: TokenizerFile): Frame {
  const nothing: Frame = { before: [], after: [] };
  if (!isObject(processor)) return nothing;
  switch (processor.type) {
    case "ByteLevel":
      return nothing;
    case "Sequence": {
      const parts = Array.isArray(processor.processors) ? processor.processors.map((part) => frameOf(part, file)) : [];
      return {
        before: parts.toReversed().flatMap((part) => part.before),
        after: parts.flatMap((part) => part.after),
      };
    }
    case "TemplateProcessing":
      return templateFrame(processor, file);
    case "BertProcessing":
    case "RobertaProcessing":
      return { before: [pairId(processor.cls, file)], after: [pairId(processor.sep, file)] };
    default:
      throw wrong("a known type", processor.type);
  }
}

function templateFrame({ single, special_tokens }: JsonObject, file: TokenizerFile): Frame {
  if (!Array.isArray(single)) throw wrong("a template `single`", single);
  const before: number[] = [];
  const after: number[] = [];
  let side = before;
  for (const item of single) {
    if (isObject(item) && isObject(item.Sequence)) side = after;
    else if (isObject(item) && isObject(item.SpecialToken) && typeof item.SpecialToken.id === "string") {
      const name = item.SpecialToken.id;
      const entry = isObject(special_tokens) ? special_tokens[name] : undefined;
      const ids = isObject(entry) && Array.isArray(entry.ids) ? entry.ids : [file.vocab.get(name)];
      for (const id of ids) {
        if (!Number.isInteger(id) || id < 0 || id >= file.vocabSize) throw wrong(`an id of ${show(name)} within the vocabulary`, id);
        side.push(id);
      }
    } else throw wrong("SpecialToken or Sequence in the template", item);
  }
  return { before, after };
}

function pairId(pair: unknown, file: TokenizerFile): number {
  const id: unknown = Array.isArray(pair) ? pair[1] : undefined;
  if (typeof id !== "number" || !Number.isInteger(id) || id < 0 || id >= file.vocabSize) throw wrong("[token, id]", pair);
  return id;
}

const wrong = (expected: string, got: unknown): FormatError =>
  new FormatError(`tokenizer post_processor: expected ${expected}, got ${show(got)}`, {
    hint: "Expected the tokenizer.json of Hugging Face's tokenizers library.",
  });

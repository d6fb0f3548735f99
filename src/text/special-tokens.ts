// Which tokens begin, end and pad a sequence: read from the names in tokenizer_config.json or special_tokens_map.json, else guessed from
// the names that the well-known families use.
import type { SpecialIds } from "./tokenizer.ts";
import { isObject, type JsonObject, type TokenizerFile } from "./tokenizer-file.ts";

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

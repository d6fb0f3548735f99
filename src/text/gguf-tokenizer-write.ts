// A tokenizer.json as the metadata of a GGUF file: the inverse of gguf-tokenizer.ts, in the keys that llama.cpp reads.
import { FormatError } from "../base/errors.ts";
import type { GgufMetadataEntry } from "../formats/gguf-header.ts";
import { ggufEntry } from "../formats/gguf-write.ts";
import { type GgufSplitting, ggufSplittings, ggufTokenKinds as kinds } from "./gguf-tokenizer.ts";
import { byteOfToken } from "./token-decoder.ts";
import { checkTokenizerFile, isObject, type JsonObject, type TokenizerFile } from "./tokenizer-file.ts";

type Entries = [key: string, entry: GgufMetadataEntry][];

/**
 * @param json tokenizer.json. @param config tokenizer_config.json. @param vocabSize of the model; ids without a token are padded.
 * @throws FormatError for kinds that GGUF does not have.
 */
export function tokenizerGgufEntries(json: JsonObject, config: JsonObject, vocabSize = 0): Entries {
  const file = checkTokenizerFile(json);
  const size = Math.max(vocabSize, file.vocabSize);
  const tokens = Array.from({ length: size }, (_, id) => `[PAD${id}]`);
  const types = new Int32Array(size).fill(kinds.unused);
  const isSentencePiece = file.modelType === "Unigram" || file.model.byte_fallback === true;
  for (const [token, id] of file.vocab) {
    tokens[id] = token;
    types[id] = isSentencePiece && byteOfToken(token) >= 0 ? kinds.byte : kinds.normal;
  }
  for (const { id, special } of file.addedTokens) types[id] = special ? kinds.control : kinds.userDefined;
  const unknown =
    typeof file.model.unk_token === "string" ? file.vocab.get(file.model.unk_token) : (file.model.unk_id as number | undefined);
  if (typeof unknown === "number" && isSentencePiece) types[unknown] = kinds.unknown;
  const model = file.modelType === "Unigram" ? "t5" : isSentencePiece ? "llama" : "gpt2";
  const entries: Entries = [["tokenizer.ggml.model", ggufEntry.string(model)]];
  if (model === "gpt2") entries.push(["tokenizer.ggml.pre", ggufEntry.string(splittingName(file))]);
  entries.push(["tokenizer.ggml.tokens", ggufEntry.strings(tokens)], ["tokenizer.ggml.token_type", ggufEntry.i32s(types)]);
  if (model === "gpt2") entries.push(["tokenizer.ggml.merges", ggufEntry.strings(file.merges.map((pair) => pair.join(" ")))]);
  else {
    entries.push(["tokenizer.ggml.scores", ggufEntry.f32s(model === "t5" ? unigramScores(file, size) : mergeScores(file, size))]);
    entries.push(["tokenizer.ggml.add_space_prefix", ggufEntry.bool(prependsSpace(file))]);
  }
  if (model === "t5") entries.push(...normalizerEntries(file));
  entries.push(...roleEntries(file, config, unknown));
  if (typeof config.chat_template === "string") entries.push(["tokenizer.chat_template", ggufEntry.string(config.chat_template)]);
  return entries;
}

function roleEntries(file: TokenizerFile, config: JsonObject, unknown: number | undefined): Entries {
  const entries: Entries = [];
  const idOf = (role: string): number | undefined => {
    const token = config[`${role}_token`];
    const name = isObject(token) ? token.content : token;
    return typeof name === "string" ? file.vocab.get(name) : undefined;
  };
  for (const [role, name] of [
    ["bos", "bos"],
    ["eos", "eos"],
    ["pad", "padding"],
    ["unk", "unknown"],
  ]) {
    const id = idOf(role) ?? (role === "unk" ? unknown : undefined);
    if (id !== undefined) entries.push([`tokenizer.ggml.${name}_token_id`, ggufEntry.u32(id)]);
  }
  const around = JSON.stringify(file.json.post_processor ?? null);
  const starts = (role: string): boolean => around.includes(`"single":[{"SpecialToken":{"id":${JSON.stringify(config[`${role}_token`])}`);
  entries.push([
    "tokenizer.ggml.add_bos_token",
    ggufEntry.bool(config.add_bos_token === true || (config.bos_token !== undefined && starts("bos"))),
  ]);
  if (config.add_eos_token === true) entries.push(["tokenizer.ggml.add_eos_token", ggufEntry.bool(true)]);
  return entries;
}

/** @throws FormatError when no rule of llama.cpp splits and merges as this file does. */
function splittingName({ json, model }: TokenizerFile): string {
  const own = signature(json.pre_tokenizer);
  const same = ({ preTokenizer, normalizer, ignoreMerges = false }: GgufSplitting): boolean =>
    signature(preTokenizer) === own &&
    ignoreMerges === (model.ignore_merges === true) &&
    (normalizer?.type ?? null) === (isObject(json.normalizer) ? json.normalizer.type : null);
  const found = ggufSplittings.find(same);
  if (found) return found.names[0];
  throw new FormatError("tokenizer.json: expected a splitting rule that GGUF has a name for, got another", {
    hint: "Write the weights without their tokenizer, or train one with a known splitting rule.",
  });
}

/** What a pre-tokenizer does, whatever fields it leaves out. */
function signature(part: unknown): string {
  if (!isObject(part)) return "none";
  switch (part.type) {
    case "Sequence":
      return Array.isArray(part.pretokenizers) ? part.pretokenizers.map(signature).join(" > ") : "none";
    case "Split":
      return `split ${isObject(part.pattern) ? part.pattern.Regex : ""} ${part.behavior} ${part.invert === true}`;
    case "Digits":
      return `digits ${part.individual_digits === true}`;
    case "ByteLevel":
      return `bytes ${part.use_regex !== false} ${part.add_prefix_space === true}`;
    default:
      return String(part.type);
  }
}

/** The earlier a token is merged the higher its score; what no merge makes comes last. */
function mergeScores(file: TokenizerFile, size: number): Float32Array {
  const scores = new Float32Array(size).fill(-file.merges.length - 1);
  for (let rank = file.merges.length - 1; rank >= 0; rank--) {
    const id = file.vocab.get(file.merges[rank].join(""));
    if (id !== undefined) scores[id] = -rank;
  }
  return scores;
}

function unigramScores({ model }: TokenizerFile, size: number): Float32Array {
  const scores = new Float32Array(size);
  for (const [id, [, score]] of (model.vocab as [string, number][]).entries()) scores[id] = score;
  return scores;
}

/** Whether a text gets a space before its first word. */
function prependsSpace({ json }: TokenizerFile): boolean {
  const parts = JSON.stringify([json.normalizer ?? null, json.pre_tokenizer ?? null]);
  return parts.includes('"Prepend"') || (parts.includes('"Metaspace"') && !parts.includes('"prepend_scheme":"never"'));
}

function normalizerEntries({ json }: TokenizerFile): Entries {
  const parts = isObject(json.normalizer) && Array.isArray(json.normalizer.normalizers) ? json.normalizer.normalizers : [json.normalizer];
  const charsmap = parts.find((part) => isObject(part) && part.type === "Precompiled") as JsonObject | undefined;
  const collapses = parts.some(
    (part) => isObject(part) && part.type === "Replace" && isObject(part.pattern) && part.pattern.Regex === " {2,}",
  );
  const entries: Entries = [["tokenizer.ggml.remove_extra_whitespaces", ggufEntry.bool(collapses)]];
  if (typeof charsmap?.precompiled_charsmap === "string") {
    const values = Uint8Array.from(Buffer.from(charsmap.precompiled_charsmap, "base64"));
    entries.push(["tokenizer.ggml.precompiled_charsmap", { type: "array", value: { type: "u8", values } }]);
  }
  return entries;
}

// Reads and checks Hugging Face's tokenizer.json and the companions that name its special tokens. Everything is bounded and checked
// before it is used; what the rest of longwave sees is a TokenizerFile.
import { closeSync, fstatSync, openSync } from "node:fs";
import { FormatError } from "../base/errors.ts";
import { readFully } from "../base/file-io.ts";
import { show } from "../base/schema.ts";

/** A parsed JSON object. */
export type JsonObject = { readonly [key: string]: unknown };

/** A token outside the model's own vocabulary, or one that is found in texts before tokenisation. */
export interface AddedToken {
  id: number;
  content: string;
  /** Left out by `decode` unless asked for. */
  special: boolean;
  /** Looked for in normalised text instead of the text as given. */
  normalized: boolean;
  lstrip: boolean;
  rstrip: boolean;
  singleWord: boolean;
}

/** What a tokenizer.json says, checked. */
export interface TokenizerFile {
  /** The whole file, for the parts that are passed on. */
  json: JsonObject;
  model: JsonObject;
  modelType: string;
  /** Ids by token, added tokens included. */
  vocab: ReadonlyMap<string, number>;
  /** BPE only; else empty. */
  merges: readonly (readonly [string, string])[];
  addedTokens: readonly AddedToken[];
  /** Highest id + 1. */
  vocabSize: number;
}

/** The words of a model, where they come from another place than the JSON object's `model`. */
export type Words = Pick<TokenizerFile, "vocab" | "merges">;

/** Larger than the largest tokenizers in use (Gemma 3: 33 MB) by a factor of eight. */
const maxTokenizerBytes = 256 << 20;
const maxIds = 1 << 24;

export const isObject = (value: unknown): value is JsonObject => typeof value === "object" && value !== null && !Array.isArray(value);

/** Reads a JSON object of at most `maxBytes`. @throws FormatError naming the file. */
export function readJsonFile(path: string, maxBytes: number = maxTokenizerBytes): JsonObject {
  const text = new TextDecoder("utf-8").decode(readBoundedFile(path, maxBytes));
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new FormatError(`${path}: expected JSON, got ${(cause as Error).message}`, {
      cause,
      hint: "The file is damaged or cut short; copy or download it again.",
    });
  }
  if (!isObject(value)) throw new FormatError(`${path}: expected a JSON object, got ${show(value)}`);
  return value;
}

/** The bytes of a file of at most `maxBytes`. @throws FormatError when it is missing, not a file or too large. */
export function readBoundedFile(path: string, maxBytes: number): Uint8Array<ArrayBuffer> {
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch (cause) {
    throw new FormatError(`${path}: expected a readable file, got ${(cause as NodeJS.ErrnoException).code ?? "an error"}`, {
      cause,
      hint: "Check the path.",
    });
  }
  try {
    const status = fstatSync(fd);
    if (!status.isFile()) throw new FormatError(`${path}: expected a file, got a directory or device`);
    if (status.size > maxBytes) throw new FormatError(`${path}: expected at most ${maxBytes} bytes, got ${status.size}`);
    const bytes = new Uint8Array(status.size);
    readFully(fd, bytes, 0, path);
    return bytes;
  } finally {
    closeSync(fd);
  }
}

/**
 * Checks the content of a tokenizer.json.
 * @param label names the source in errors.
 * @param words taken for those of `json.model`, which then need not be there.
 * @throws FormatError saying which part is wrong.
 */
export function checkTokenizerFile(json: JsonObject, label = "tokenizer.json", words?: Words): TokenizerFile {
  const wrong = (where: string, expected: string, got: unknown): FormatError =>
    new FormatError(`${label}: ${where}: expected ${expected}, got ${show(got)}`, {
      hint: "Expected the tokenizer.json of Hugging Face's tokenizers library.",
    });
  const { model } = json;
  if (!isObject(model)) throw wrong("model", "an object", model);
  const modelType = typeof model.type === "string" ? model.type : Array.isArray(model.vocab) ? "Unigram" : "BPE";
  if (!["BPE", "Unigram", "WordPiece", "WordLevel"].includes(modelType)) throw wrong("model.type", "BPE, Unigram or WordPiece", model.type);
  for (const part of ["normalizer", "pre_tokenizer", "post_processor", "decoder"]) {
    const value = json[part] ?? null;
    if (value !== null && !isObject(value)) throw wrong(part, "an object or null", value);
  }

  const checkId = (id: unknown, where: () => string): number => {
    if (!Number.isInteger(id) || (id as number) < 0 || (id as number) >= maxIds) throw wrong(where(), `an id from 0 to ${maxIds - 1}`, id);
    return id as number;
  };
  const vocab = new Map(words?.vocab);
  const tokenOf: (string | undefined)[] = [];
  for (const [token, id] of vocab) tokenOf[id] = token;
  const addEntry = (token: string, id: number, where: string): void => {
    const holder = tokenOf[id];
    if (holder !== undefined && holder !== token) throw wrong(where, `an id of its own (${id} is ${show(holder)})`, token);
    vocab.set(token, id);
    tokenOf[id] = token;
  };
  if (words) {
    // Read and checked by whoever gives them.
  } else if (modelType === "Unigram") {
    if (!Array.isArray(model.vocab)) throw wrong("model.vocab", "a list of [token, score]", model.vocab);
    model.vocab.forEach((entry: unknown, id) => {
      if (!Array.isArray(entry) || typeof entry[0] !== "string" || typeof entry[1] !== "number") {
        throw wrong(`model.vocab[${id}]`, "[token, score]", entry);
      }
      vocab.set(entry[0], id);
      tokenOf[id] = entry[0];
    });
  } else {
    if (!isObject(model.vocab)) throw wrong("model.vocab", "an object of ids by token", model.vocab);
    for (const token of Object.keys(model.vocab)) {
      const id = checkId(model.vocab[token], () => `model.vocab[${show(token)}]`);
      addEntry(token, id, "model.vocab");
    }
  }

  const added = json.added_tokens ?? [];
  if (!Array.isArray(added)) throw wrong("added_tokens", "a list", added);
  const addedTokens = added.map((entry: unknown, index): AddedToken => {
    const where = `added_tokens[${index}]`;
    if (!isObject(entry) || typeof entry.content !== "string" || entry.content === "") throw wrong(where, "an object with content", entry);
    const id = checkId(entry.id, () => `${where}.id`);
    addEntry(entry.content, id, where);
    const special = entry.special === true;
    return {
      id,
      content: entry.content,
      special,
      normalized: typeof entry.normalized === "boolean" ? entry.normalized : !special,
      lstrip: entry.lstrip === true,
      rstrip: entry.rstrip === true,
      singleWord: entry.single_word === true,
    };
  });
  if (vocab.size === 0) throw wrong("model.vocab", "at least one token", model.vocab);
  const merges = words?.merges ?? (modelType === "BPE" ? checkMerges(model.merges, wrong) : []);
  return { json, model, modelType, vocab, merges, addedTokens, vocabSize: tokenOf.length };
}

function checkMerges(merges: unknown, wrong: (where: string, expected: string, got: unknown) => FormatError): [string, string][] {
  if (!Array.isArray(merges)) throw wrong("model.merges", "a list", merges);
  return merges.map((entry: unknown, rank): [string, string] => {
    // Written as "a b" until 2024 and as ["a", "b"] since.
    const parts = typeof entry === "string" ? entry.split(" ") : entry;
    if (!Array.isArray(parts) || parts.length !== 2 || typeof parts[0] !== "string" || typeof parts[1] !== "string") {
      throw wrong(`model.merges[${rank}]`, "a pair of tokens", entry);
    }
    return parts as [string, string];
  });
}

// The pre-tokenizers of a tokenizer.json: how a normalised text is cut into the pieces that the model encodes one by one.
import { FormatError } from "../base/errors.ts";
import { show } from "../base/schema.ts";
import { type AlignedText, sliceAligned } from "./aligned-text.ts";
import { matchesOf, patternOf, prependText, toByteCharacters } from "./normalizers.ts";
import { compileOniguruma } from "./oniguruma.ts";
import { gpt2Pattern } from "./pre-tokenizer.ts";
import { isObject, type JsonObject } from "./tokenizer-file.ts";

/** Cuts a piece into pieces, none of them empty. */
export type SplitStep = (piece: AlignedText) => AlignedText[];

type Behavior = "Removed" | "Isolated" | "MergedWithPrevious" | "MergedWithNext" | "Contiguous";
const behaviors: readonly unknown[] = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"];

const maxNesting = 16;
const wrong = (expected: string, got: unknown): FormatError =>
  new FormatError(`tokenizer pre_tokenizer: expected ${expected}, got ${show(got)}`, {
    hint: "Expected the tokenizer.json of Hugging Face's tokenizers library.",
  });

/**
 * @param spelling `text`: a ByteLevel step splits, but does not write bytes as characters (for an encoder that does it itself).
 * @throws FormatError for a pre-tokenizer that is not known or lacks a field.
 */
export function makeSplitStep(config: unknown, spelling: "bytes" | "text" = "bytes", depth = 0): SplitStep {
  if (config === null || config === undefined) return (piece) => (piece.text === "" ? [] : [piece]);
  if (!isObject(config) || depth > maxNesting) throw wrong("an object", config);
  switch (config.type) {
    case "Sequence": {
      if (!Array.isArray(config.pretokenizers)) throw wrong("a list `pretokenizers`", config.pretokenizers);
      const steps = config.pretokenizers.map((step) => makeSplitStep(step, spelling, depth + 1));
      return (piece) => steps.reduce((pieces, step) => pieces.flatMap(step), [piece]).filter(({ text }) => text !== "");
    }
    case "ByteLevel":
      return byteLevel(config, spelling === "bytes");
    case "Metaspace":
      return metaspace(config);
    case "Split": {
      const { behavior, invert } = config;
      if (!behaviors.includes(behavior)) throw wrong("a known `behavior`", behavior);
      return splitter(patternOf(config), behavior as Behavior, invert === true);
    }
    case "Digits":
      return splitter(/\p{N}/gu, config.individual_digits === true ? "Isolated" : "Contiguous");
    case "Punctuation": {
      const behavior = config.behavior ?? "Isolated";
      if (!behaviors.includes(behavior)) throw wrong("a known `behavior`", behavior);
      return splitter(/[!-/:-@[-`{-~\p{P}]/gu, behavior as Behavior);
    }
    case "Whitespace":
      return splitter(compileOniguruma("\\w+|[^\\w\\s]+"), "Removed", true);
    case "WhitespaceSplit":
      return splitter(/\p{White_Space}/gu, "Removed");
    case "BertPreTokenizer": {
      const words = splitter(/\p{White_Space}/gu, "Removed");
      const marks = splitter(/[!-/:-@[-`{-~\p{P}]/gu, "Isolated");
      return (piece) => words(piece).flatMap(marks);
    }
    case "CharDelimiterSplit": {
      if (typeof config.delimiter !== "string") throw wrong("a text `delimiter`", config.delimiter);
      return splitter(config.delimiter, "Removed");
    }
    default:
      throw wrong("a known type", config.type);
  }
}

function splitter(pattern: string | RegExp, behavior: Behavior, invert = false): SplitStep {
  return (piece) => {
    const { text } = piece;
    const parts: (readonly [start: number, end: number, isMatch: boolean])[] = [];
    let done = 0;
    for (const [start, end] of matchesOf(text, pattern)) {
      if (start === end) continue;
      if (start > done) parts.push([done, start, invert]);
      parts.push([start, end, !invert]);
      done = end;
    }
    if (done < text.length) parts.push([done, text.length, invert]);
    if (parts.length < 2 && behavior !== "Removed") return text === "" ? [] : [piece];
    return joinParts(parts, behavior).map(([start, end]) => sliceAligned(piece, start, end));
  };
}

/** What becomes of the parts between matches and of the matches. */
function joinParts(parts: readonly (readonly [number, number, boolean])[], behavior: Behavior): (readonly [number, number])[] {
  if (behavior === "Isolated") return parts.map(([start, end]) => [start, end]);
  if (behavior === "Removed") return parts.filter(([, , isMatch]) => !isMatch).map(([start, end]) => [start, end]);
  const joined: [number, number][] = [];
  let wasMatch: boolean | undefined;
  if (behavior === "MergedWithNext") {
    for (const [start, end, isMatch] of parts.toReversed()) {
      const next = joined.at(-1);
      if (isMatch && wasMatch === false && next) next[0] = start;
      else joined.push([start, end]);
      wasMatch = isMatch;
    }
    return joined.reverse();
  }
  for (const [start, end, isMatch] of parts) {
    const previous = joined.at(-1);
    const joins = behavior === "Contiguous" ? isMatch === wasMatch : isMatch && wasMatch === false;
    if (joins && previous) previous[1] = end;
    else joined.push([start, end]);
    wasMatch = isMatch;
  }
  return joined;
}

function byteLevel(config: JsonObject, writesBytes: boolean): SplitStep {
  const addPrefix = config.add_prefix_space !== false;
  const split = config.use_regex === false ? (piece: AlignedText) => [piece] : splitter(compileOniguruma(gpt2Pattern), "Isolated");
  return (piece) => {
    const pieces = split(addPrefix && !piece.text.startsWith(" ") ? prependText(piece, " ") : piece).filter(({ text }) => text !== "");
    return writesBytes ? pieces.map(toByteCharacters) : pieces;
  };
}

/** The last step writes bytes as characters. */
export function endsInByteLevel(config: unknown): boolean {
  if (!isObject(config)) return false;
  if (config.type === "ByteLevel") return true;
  return config.type === "Sequence" && Array.isArray(config.pretokenizers) && endsInByteLevel(config.pretokenizers.at(-1));
}

function metaspace(config: JsonObject): SplitStep {
  const replacement = typeof config.replacement === "string" && config.replacement !== "" ? config.replacement : "▁";
  // Files of before 2024 have add_prefix_space instead of a scheme.
  const scheme = config.prepend_scheme ?? (config.add_prefix_space === false ? "never" : "always");
  if (scheme !== "always" && scheme !== "first" && scheme !== "never") throw wrong("a known `prepend_scheme`", scheme);
  if (replacement.length !== 1) throw wrong("one character as `replacement`", replacement);
  const split = config.split === false ? undefined : splitter(replacement, "MergedWithNext");
  return (piece) => {
    // One code unit for one: the places stay.
    let marked: AlignedText = { ...piece, text: piece.text.replaceAll(" ", replacement) };
    const prepends = scheme === "always" || (scheme === "first" && piece.isFirst);
    if (prepends && !marked.text.startsWith(replacement)) marked = prependText(marked, replacement);
    if (marked.text === "") return [];
    return split ? split(marked) : [marked];
  };
}

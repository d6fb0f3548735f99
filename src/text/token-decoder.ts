// From tokens back to text. The decoders that language models use are written here, exactly as Hugging Face's library decodes
// (an invalid run of byte tokens becomes one U+FFFD a byte); rarer ones are left to @huggingface/tokenizers.
import { isObject, type JsonObject } from "./tokenizer-file.ts";

/** Turns the tokens of one sequence into pieces of text; their concatenation is the text. */
export type DecodeStep = (tokens: readonly string[]) => string[];

/** The decoder of a tokenizer.json as one function, or undefined when it has a part that is not written here. */
export function makeDecodeStep(config: unknown): DecodeStep | undefined {
  if (config === null || config === undefined) return (tokens) => [tokens.join(" ")];
  if (!isObject(config)) return undefined;
  switch (config.type) {
    case "Sequence":
      return makeSequence(config.decoders);
    case "Replace":
      return makeReplace(config);
    case "ByteFallback":
      return byteFallback;
    case "Fuse":
      return (tokens) => [tokens.join("")];
    case "Strip":
      return makeStrip(config);
    case "Metaspace":
      return makeMetaspace(config);
    default:
      return undefined;
  }
}

function makeSequence(decoders: unknown): DecodeStep | undefined {
  if (!Array.isArray(decoders)) return undefined;
  const steps: DecodeStep[] = [];
  for (const decoder of decoders) {
    const step = makeDecodeStep(decoder);
    if (step === undefined) return undefined;
    steps.push(step);
  }
  return (tokens) => steps.reduce((pieces, step) => step(pieces), [...tokens]);
}

function makeReplace({ pattern, content }: JsonObject): DecodeStep | undefined {
  if (!isObject(pattern) || typeof pattern.String !== "string" || typeof content !== "string") return undefined;
  const from = pattern.String;
  return (tokens) => tokens.map((token) => token.replaceAll(from, () => content));
}

function makeStrip({ content, start, stop }: JsonObject): DecodeStep | undefined {
  if (typeof content !== "string" || typeof start !== "number" || typeof stop !== "number") return undefined;
  return (tokens) =>
    tokens.map((token) => {
      let from = 0;
      let to = token.length;
      while (from < start && token.startsWith(content, from)) from += content.length;
      for (let cut = 0; cut < stop && to > from && token.endsWith(content) && token[to - 1] === content; cut++) to--;
      return token.slice(from, to);
    });
}

/** The marker of a space is dropped from the first token altogether. */
function makeMetaspace({ replacement, prepend_scheme }: JsonObject): DecodeStep {
  const marker = typeof replacement === "string" && replacement !== "" ? replacement : "▁";
  const dropsFirst = prepend_scheme !== "never";
  return (tokens) => tokens.map((token, index) => token.replaceAll(marker, index === 0 && dropsFirst ? "" : " "));
}

/** The byte of a token `<0xNN>`, or −1. */
export function byteOfToken(token: string): number {
  return /^<0x[0-9A-Fa-f]{2}>$/.test(token) ? Number.parseInt(token.slice(3, 5), 16) : -1;
}

const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function byteFallback(tokens: readonly string[]): string[] {
  const pieces: string[] = [];
  let run: number[] = [];
  const flush = (): void => {
    if (run.length === 0) return;
    try {
      pieces.push(strictUtf8.decode(Uint8Array.from(run)));
    } catch {
      pieces.push("\ufffd".repeat(run.length));
    }
    run = [];
  };
  for (const token of tokens) {
    const byte = byteOfToken(token);
    if (byte >= 0) run.push(byte);
    else {
      flush();
      pieces.push(token);
    }
  }
  flush();
  return pieces;
}

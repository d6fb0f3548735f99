// The parts of the pipeline against independent statements of what they do: JavaScript's normalize, the npm package of the format's
// authors where it is right, small cases worked out by hand.
import { Tokenizer as LibraryTokenizer } from "@huggingface/tokenizers";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FormatError } from "../base/errors.ts";
import { alignedText } from "./aligned-text.ts";
import { tokenizerFromJson } from "./load-tokenizer.ts";
import { makeNormalizer } from "./normalizers.ts";
import { compileOniguruma } from "./oniguruma.ts";
import { makeSplitStep } from "./split-steps.ts";
import type { JsonObject } from "./tokenizer-file.ts";

const marks = fc.constantFrom(
  ..."a e o A  \u0301\u0300\u0323\u0308\u0345\u0334\u00e9\u1e69\u212b\ufb01\u1100\u1161\u11a8\uac00😀\u0f71\u0f72".split(""),
  "\ud834\udd5e",
);
const text = fc.array(marks, { maxLength: 12 }).map((parts) => parts.join("").replace(/\p{Surrogate}/gu, ""));

describe("normalisers", () => {
  test.each(["NFC", "NFD", "NFKC", "NFKD"] as const)(
    "%s with places gives JavaScript's text, and places that cover it in order",
    (form) => {
      const normalize = makeNormalizer({ type: form });
      fc.assert(
        fc.property(text, (sample) => {
          const { text: result, starts = [], ends = [] } = normalize(alignedText(sample, 0, sample.length, true));
          expect(result).toBe(sample.normalize(form));
          expect(starts.length).toBe(result.length);
          for (let i = 0; i < result.length; i++) {
            expect(starts[i]).toBeGreaterThanOrEqual(0);
            expect(ends[i]).toBeLessThanOrEqual(sample.length);
            expect(ends[i]).toBeGreaterThan(starts[i]);
          }
        }),
        { numRuns: 400 },
      );
    },
  );

  test.each<JsonObject>([
    { type: "Lowercase" },
    { type: "StripAccents" },
    { type: "Nmt" },
    { type: "Strip", strip_left: true, strip_right: true },
    { type: "Replace", pattern: { Regex: "[ae]+" }, content: "xy" },
    { type: "Prepend", prepend: "▁" },
    { type: "BertNormalizer", lowercase: true, strip_accents: null, clean_text: true, handle_chinese_chars: true },
  ])("%j gives the same text with places and without", (config) => {
    const normalize = makeNormalizer(config);
    fc.assert(
      fc.property(text, (sample) => {
        const tracked = normalize(alignedText(sample, 0, sample.length, true));
        expect(tracked.text).toBe(normalize(alignedText(sample, 0, sample.length, false)).text);
        expect(tracked.starts?.length).toBe(tracked.text.length);
      }),
    );
  });

  test("places are those of the characters that were replaced", () => {
    const { starts, ends } = makeNormalizer({ type: "NFC" })(alignedText("xe\u0301y", 0, 4, true));
    expect([...(starts ?? [])]).toEqual([0, 1, 3]);
    expect([...(ends ?? [])]).toEqual([1, 2, 4]);
  });

  test("a kind that is not known is refused", () => {
    expect(() => makeNormalizer({ type: "Rot13" })).toThrow(FormatError);
    expect(() => makeSplitStep({ type: "Rot13" })).toThrow(FormatError);
    expect(() => makeNormalizer({ type: "Precompiled", precompiled_charsmap: "AAAA" })).toThrow(/precompiled_charsmap: expected an array/);
  });
});

describe("splitting", () => {
  const split = (config: JsonObject, sample: string) => makeSplitStep(config)({ text: sample, isFirst: true }).map((piece) => piece.text);
  const by = (behavior: string, invert = false) => ({ type: "Split", pattern: { String: "-" }, behavior, invert });

  test("behaviours, as the library documents them", () => {
    const sample = "the-final--countdown";
    expect(split(by("Removed"), sample)).toEqual(["the", "final", "countdown"]);
    expect(split(by("Isolated"), sample)).toEqual(["the", "-", "final", "-", "-", "countdown"]);
    expect(split(by("MergedWithPrevious"), sample)).toEqual(["the-", "final-", "-", "countdown"]);
    expect(split(by("MergedWithNext"), sample)).toEqual(["the", "-final", "-", "-countdown"]);
    expect(split(by("Contiguous"), sample)).toEqual(["the", "-", "final", "--", "countdown"]);
    expect(split(by("Removed", true), sample)).toEqual(["-", "-", "-"]);
  });

  test("words, digits and marks", () => {
    expect(split({ type: "Whitespace" }, "Hey, man_1!  ok")).toEqual(["Hey", ",", "man_1", "!", "ok"]);
    expect(split({ type: "Digits", individual_digits: false }, "a12b٣")).toEqual(["a", "12", "b", "٣"]);
    expect(split({ type: "BertPreTokenizer" }, "it's $5.")).toEqual(["it", "'", "s", "$", "5", "."]);
    expect(split({ type: "Metaspace", replacement: "▁", prepend_scheme: "always" }, "a  b")).toEqual(["▁a", "▁", "▁b"]);
  });
});

describe("regular expressions", () => {
  const matches = (pattern: string, sample: string) => sample.match(compileOniguruma(pattern));

  test("notation that JavaScript lacks", () => {
    expect(matches("(?i:'S|'ll)", "it's I'LL we'\u017f")).toEqual(["'s", "'LL", "'\u017f"]);
    expect(matches("\\s+", "a\u0085b\ufeffc")).toEqual(["\u0085"]);
    expect(matches("[^\\s\\p{L}]++x?", "!!x")).toEqual(["!!x"]);
    expect(matches("a++a", "aaa")).toBeNull();
    expect(matches("(?>a+)b", "aaab")).toEqual(["aaab"]);
    expect(matches("[[:alpha:]&&[^b]]+", "abcé1")).toEqual(["a", "cé"]);
    expect(matches("\\p{Han}+|\\h{2}", "日本 1f")).toEqual(["日本", "1f"]);
    expect(matches("[!\\\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+", "-ab ]c")).toEqual(["-ab", "]c"]);
    expect(matches("^b$", "a\nb\nc")).toEqual(["b"]);
  });

  test.each(["(", "[a", "a)", "(?P<x>a)", "\\p{Nope}", "*a", "\\k"])("%s is refused", (pattern) => {
    expect(() => compileOniguruma(pattern)).toThrow(FormatError);
  });
});

describe("other models", () => {
  const words = ["[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able", "able", "a", "##b", "the", "!", "##s", "é"];
  const vocab = Object.fromEntries(words.map((token, id) => [token, id]));
  const wordPiece = {
    normalizer: { type: "BertNormalizer", clean_text: true, handle_chinese_chars: true, strip_accents: false, lowercase: true },
    pre_tokenizer: { type: "BertPreTokenizer" },
    post_processor: { type: "BertProcessing", sep: ["[SEP]", 2], cls: ["[CLS]", 1] },
    decoder: { type: "WordPiece", prefix: "##", cleanup: true },
    added_tokens: [],
    model: { type: "WordPiece", unk_token: "[UNK]", continuing_subword_prefix: "##", max_input_chars_per_word: 100, vocab },
  };

  test("WordPiece equals the library", () => {
    const own = tokenizerFromJson(wordPiece);
    const library = new LibraryTokenizer({ ...wordPiece, post_processor: null } as never, {});
    const parts = fc.array(fc.constantFrom("un", "aff", "able", "a", "b", "THE", " ", "!", "s", "é", "\t", "x"), { maxLength: 12 });
    fc.assert(
      fc.property(parts, (chosen) => {
        const sample = chosen.join("");
        expect([...own.encode(sample, { addSpecialTokens: false })]).toEqual(library.encode(sample).ids);
      }),
    );
    expect([...own.encode("Unaffable a!")]).toEqual([1, 3, 4, 5, 7, 10, 2]);
    expect(own.decode([3, 4, 5, 9, 10])).toBe("unaffable the!");
  });

  test("a pair of texts in BERT's manner", () => {
    const { ids, typeIds, specialMask, offsets } = tokenizerFromJson(wordPiece).encodeWithOffsets("The", { pair: "a b" });
    expect([...ids]).toEqual([1, 9, 2, 7, 0, 2]);
    expect([...typeIds]).toEqual([0, 0, 0, 1, 1, 1]);
    expect([...specialMask]).toEqual([1, 0, 1, 0, 0, 1]);
    expect([...offsets]).toEqual([0, 0, 0, 3, 0, 0, 0, 1, 2, 3, 0, 0]);
  });

  test("BPE with marks at the ends of words", () => {
    const tokens = ["<unk>", "l", "o", "w", "w</w>", "lo", "low</w>", "o</w>"];
    const tokenizer = tokenizerFromJson({
      pre_tokenizer: { type: "WhitespaceSplit" },
      decoder: { type: "BPEDecoder", suffix: "</w>" },
      model: {
        type: "BPE",
        unk_token: "<unk>",
        end_of_word_suffix: "</w>",
        vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
        merges: ["l o", "lo w</w>"],
      },
    });
    expect([...tokenizer.encode("low lo xw")]).toEqual([6, 1, 7, 0, 4]);
    expect(tokenizer.decode([6, 1, 7])).toBe("low lo");
  });

  test("trimmed offsets leave white space out", () => {
    const bytes = ["Ġ", "a", "b", "Ġa"];
    const tokenizer = tokenizerFromJson({
      pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, use_regex: true },
      post_processor: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true },
      decoder: { type: "ByteLevel" },
      model: { type: "BPE", vocab: Object.fromEntries(bytes.map((token, id) => [token, id])), merges: [["Ġ", "a"]] },
    });
    const { ids, offsets } = tokenizer.encodeWithOffsets("b ab a");
    expect([...ids]).toEqual([2, 3, 2, 3]);
    expect([...offsets]).toEqual([0, 1, 2, 3, 3, 4, 5, 6]);
  });
});

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createStopStringMatcher } from "./stop-strings.ts";

/** The definition, on the whole text: the first position at which any stop string is complete; the longest of those. */
function naive(text: string, stops: string[], include: boolean) {
  for (let end = 1; end <= text.length; end++) {
    const complete = stops.filter((stop) => text.slice(0, end).endsWith(stop)).sort((a, b) => b.length - a.length);
    if (complete.length === 0) continue;
    const start = end - complete[0].length;
    return { emitted: text.slice(0, include ? end : start), match: { stopString: complete[0], start, end } };
  }
  return { emitted: text, match: null };
}

function stream(pieces: string[], stops: string[], include = false) {
  const matcher = createStopStringMatcher(stops, { includeStopString: include });
  const emitted = pieces.map((piece) => matcher.push(piece));
  return { emitted, rest: matcher.finish(), match: matcher.match };
}

describe("stop strings", () => {
  it("holds back a beginning and emits it when it turns out to be something else", () => {
    expect(stream(["Hel", "lo <|", "im", " x"], ["<|im_end|>"])).toEqual({ emitted: ["Hel", "lo ", "", "<|im x"], rest: "", match: null });
    expect(stream(["a <|im_", "end|> b"], ["<|im_end|>"])).toEqual({
      emitted: ["a ", ""],
      rest: "",
      match: { stopString: "<|im_end|>", start: 2, end: 12 },
    });
  });

  it("emits what was held back when generation ends otherwise", () => {
    expect(stream(["abc", "\n"], ["\n\n"])).toEqual({ emitted: ["abc", ""], rest: "\n", match: null });
  });

  it("includes the stop string on demand, and then holds nothing back", () => {
    expect(stream(["one E", "N", "D two"], ["END"], true)).toEqual({
      emitted: ["one E", "N", "D"],
      rest: "",
      match: { stopString: "END", start: 4, end: 7 },
    });
  });

  it("finds a stop string inside a longer piece, and one that restarts within itself", () => {
    expect(stream(["x. STOP y"], ["STOP"]).emitted).toEqual(["x. "]);
    expect(stream(["aa", "aab"], ["aaab"]).emitted).toEqual(["", "a"]);
  });

  it("prefers the stop string that is complete first, then the longer one", () => {
    expect(stream(["abcd"], ["abcd", "bc"]).match?.stopString).toBe("bc");
    expect(stream(["xab"], ["b", "ab"]).match?.stopString).toBe("ab");
  });

  it("emits nothing after a match", () => {
    const matcher = createStopStringMatcher(["."]);
    expect([matcher.push("a.b"), matcher.push("c"), matcher.finish()]).toEqual(["a", "", ""]);
  });

  it("does not split a surrogate pair", () => {
    // Both begin with the same high surrogate.
    expect(stream(["a😀", "b"], ["😁"]).emitted).toEqual(["a😀", "b"]);
  });

  it("passes everything through without stop strings, and refuses an empty one", () => {
    expect(stream(["a", "b"], []).emitted).toEqual(["a", "b"]);
    expect(() => createStopStringMatcher(["x", ""])).toThrow(/expected non-empty strings/);
  });

  it("equals the search in the whole text for every way to cut it", () => {
    const letters = fc.string({ unit: fc.constantFrom("a", "b", "c"), maxLength: 24 });
    const stop = fc.string({ unit: fc.constantFrom("a", "b", "c"), minLength: 1, maxLength: 5 });
    fc.assert(
      fc.property(fc.array(letters, { maxLength: 6 }), fc.array(stop, { maxLength: 4 }), fc.boolean(), (pieces, stops, include) => {
        const text = pieces.join("");
        const expected = naive(text, stops, include);
        const { emitted, rest, match } = stream(pieces, stops, include);
        expect(emitted.join("") + rest).toBe(expected.emitted);
        expect(match).toEqual(expected.match);
      }),
      { numRuns: 3000, seed: 7 },
    );
  });

  it("holds back no more than it must", () => {
    const letters = fc.string({ unit: fc.constantFrom("a", "b"), maxLength: 6 });
    fc.assert(
      fc.property(
        fc.array(letters, { maxLength: 6 }),
        fc.array(fc.constantFrom("aab", "bba", "abab"), { minLength: 1 }),
        (pieces, stops) => {
          const matcher = createStopStringMatcher(stops);
          let text = "";
          let emitted = "";
          for (const piece of pieces) {
            text += piece;
            emitted += matcher.push(piece);
            if (matcher.match !== null) return;
            const held = text.slice(emitted.length);
            expect(held === "" || stops.some((stop) => stop.startsWith(held))).toBe(true);
          }
        },
      ),
      { numRuns: 1000, seed: 7 },
    );
  });
});

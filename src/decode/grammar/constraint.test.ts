import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { UsageError } from "../../base/errors.ts";
import { loadTokenizer, tokenBytes } from "../../text/index.ts";
import { createProcessor } from "../sampling/processor.ts";
import { compileGrammar, constrain, grammarVocabulary } from "./compile-grammar.ts";
import { GrammarConstraint } from "./constraint.ts";
import { Grammar } from "./grammar.ts";
import { GrammarVocabulary } from "./vocabulary.ts";

const golden = (name: string) => loadTokenizer(fileURLToPath(new URL(`../../../test/golden/tokenizers/${name}`, import.meta.url)));
const json = Grammar.fromJsonSchema(true);
const grammars: Record<string, Grammar> = {
  json,
  sentences: Grammar.parse('root ::= ([A-Z] [a-zé]* " " | [0-9]{2,4} "-")+ "."'),
  emoji: Grammar.parse('root ::= ([😀-😂é] | [^a-z])* "whale"?'),
  counted: Grammar.parse('root ::= "<" ([a-z] | "é"){7,12} ">" [a-z ]{0,9} ("ab"? "."){6,}'),
  "counted JSON": Grammar.fromJsonSchema({
    type: "array",
    items: { type: "string", minLength: 8, maxLength: 20 },
    minItems: 6,
    maxItems: 30,
  }),
  nested: Grammar.parse('root ::= "(" root* ")" | "[" root* "]" | "a"+'),
};

/** The ids that a state allows, by trying each token. */
function allowedByTrying(grammar: Grammar, bytes: readonly (Uint8Array | undefined)[], text: Uint8Array): number[] {
  return [...bytes.keys()].filter((id) => {
    const own = bytes[id];
    return own !== undefined && own.length > 0 && grammar.begins(Buffer.concat([text, own]));
  });
}

describe.each(["llama3-bytelevel", "llama2-bytefallback", "unigram-bytefallback"])("%s", (name) => {
  const tokenizer = golden(name);
  const bytes = tokenBytes(tokenizer);
  const eos = tokenizer.specialIds.eos as number;

  test.each(Object.entries(grammars))("%s: masks equal trying every token", (_, grammar) => {
    const constraint = constrain(grammar, tokenizer);
    fc.assert(
      fc.property(fc.array(fc.nat(), { maxLength: 14 }), (choices) => {
        const ids: number[] = [];
        for (const pick of choices) {
          const text = Buffer.concat(ids.map((id) => bytes[id] as Uint8Array));
          const expected = allowedByTrying(grammar, bytes, text);
          const logits = new Float32Array(tokenizer.vocabSize + 5);
          constraint.apply(logits, { ids: [7, 7, ...ids], promptLength: 2 });
          const found = [...logits.keys()].filter((id) => logits[id] === 0);
          expect(found.filter((id) => id !== eos)).toEqual(expected);
          expect(found.includes(eos)).toBe(grammar.matches(text));
          if (expected.length === 0) break;
          ids.push(expected[pick % expected.length]);
        }
      }),
      { numRuns: 12 },
    );
  });
});

describe("a constraint", () => {
  const tokenizer = golden("llama3-bytelevel");
  const ids = (text: string): number[] => [...tokenizer.encode(text, { addSpecialTokens: false })];
  const schema = {
    type: "object",
    properties: { city: { enum: ["Paris", "Rome"] }, temperature: { type: "integer" } },
    required: ["city", "temperature"],
  };

  test("states follow branches, whatever was asked before", () => {
    const grammar = Grammar.parse('root ::= "ab" [0-9]+ | "ac" [x-z]+');
    const [shared, fresh] = [constrain(grammar, tokenizer), () => constrain(grammar, tokenizer)];
    const mask = (constraint: GrammarConstraint, path: number[]): string => {
      const logits = new Float32Array(tokenizer.vocabSize);
      constraint.apply(logits, { ids: path, promptLength: 0 });
      return [...logits.keys()].filter((id) => logits[id] === 0).join();
    };
    for (const text of ["", "ab", "ac", "ab1", "acx", "ab12", "a", "acxyz", "ab1x", ""]) {
      expect(mask(shared, ids(text)), text).toBe(mask(fresh(), ids(text)));
    }
  });

  test("forced tokens spell what has no alternative", () => {
    const constraint = compileGrammar({ jsonSchema: schema }, tokenizer) as GrammarConstraint;
    const forced = (text: string, limit = 64): string => tokenizer.decode(constraint.forced({ ids: ids(text), promptLength: 0 }, limit));
    expect(forced("")).toBe("{");
    expect(forced('{"')).toBe('city"');
    expect(forced('{"ci')).toBe('ty"');
    expect(forced('{"city":"P')).toBe('aris"');
    expect(forced('{"city":"P', 1).length).toBeLessThan(4);
    expect(forced('{"city":"Paris","temperature":1')).toBe("");
    const ofText = constraint.forced({ ids: ids('{"city":"R'), promptLength: 0 }, 64);
    expect(ofText).toEqual(ids('ome"'));
    const greedy = new GrammarConstraint(constraint.grammar, grammarVocabulary(tokenizer), { eosTokenIds: [1] });
    expect(tokenizer.decode(greedy.forced({ ids: ids('{"city":"R'), promptLength: 0 }, 64))).toBe('ome"');
  });

  test("ends where the grammar does, and only there", () => {
    const constraint = compileGrammar({ grammar: 'root ::= "a" "b"?' }, tokenizer) as GrammarConstraint;
    const eos = tokenizer.specialIds.eos as number;
    const after = (path: number[]): number[] => {
      const logits = new Float32Array(tokenizer.vocabSize);
      constraint.apply(logits, { ids: path, promptLength: 0 });
      return [...logits.keys()].filter((id) => logits[id] === 0);
    };
    expect(after([])).not.toContain(eos);
    expect(after(ids("a"))).toEqual([...ids("b"), eos].sort((x, y) => x - y));
    expect(after(ids("ab"))).toEqual([eos]);
    // What a draft wrote behind the end, or against the grammar, does not matter.
    expect(after([...ids("ab"), eos])).toEqual([eos]);
    expect(after(ids("x"))).toEqual([eos]);
    expect(constraint.isComplete({ ids: ids("a"), promptLength: 0 })).toBe(true);
  });

  test("comes first among the steps", () => {
    const grammar = compileGrammar({ grammar: 'root ::= "yes" | "no"' }, tokenizer) as GrammarConstraint;
    const processor = createProcessor(
      { temperature: 0.5, topK: 3, repetitionPenalty: 1.2 },
      { vocabularySize: tokenizer.vocabSize, grammar },
    );
    expect(processor.steps).toEqual(["grammar", "repetitionPenalty", "temperature", "topK"]);
    expect(processor.dependsOnSequence).toBe(true);
    const token = processor.select(new Float32Array(tokenizer.vocabSize), { ids: [], promptLength: 0 }, 0.3);
    expect("yesno").toContain(tokenizer.decode([token]));
  });

  test("a vocabulary that cannot spell the text is an error", () => {
    const bytes = [undefined, Buffer.from("a"), Buffer.from("b")];
    const constraint = new GrammarConstraint(Grammar.parse('root ::= "ac"'), new GrammarVocabulary(bytes), { eosTokenIds: [0] });
    const logits = new Float32Array(3);
    constraint.apply(logits, { ids: [], promptLength: 0 });
    expect([...logits]).toEqual([-Infinity, 0, -Infinity]);
    expect(() => constraint.apply(new Float32Array(3), { ids: [1], promptLength: 0 })).toThrow(UsageError);
    expect(() => new GrammarConstraint(json, grammarVocabulary(tokenizer), { eosTokenIds: [] })).toThrow(UsageError);
  });

  test("settings: one of both, unknown keys", () => {
    expect(compileGrammar({}, tokenizer)).toBeUndefined();
    expect(() => compileGrammar({ grammar: 'root ::= "a"', jsonSchema: true }, tokenizer)).toThrow(UsageError);
    expect(() => compileGrammar({ gramar: "" } as never, tokenizer)).toThrow(/grammar/);
  });
});

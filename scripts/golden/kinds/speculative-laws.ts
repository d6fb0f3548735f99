// models/speculative/exact-laws: what one draft-verify step of every rule emits, with exact probabilities, from tables of p and q.
import { enumerate, lawOfSequences } from "../../../src/decode/verifiers/testing/enumerate.ts";
import { lawOf, type Table } from "../../../src/decode/verifiers/testing/laws.ts";
import type { Comparison } from "../compare.ts";
import { asIntegers, asNumber, asNumbers, asObject, asObjects, asText, type Fields, Malformed } from "../fields.ts";
import type { GoldenCase, GoldenKind } from "../kind.ts";

const kindName = "models/speculative/exact-laws";
const exact = { absolute: 1e-12 };

export const kind: GoldenKind = {
  recognise(folder) {
    const first = folder.peekFirst("expected.json", "cases");
    const isLaws = first !== undefined && "laws" in first && "p" in first && "q" in first;
    if (!isLaws && folder.name !== "exact-laws") return [];
    return [{ name: "", files: ["expected.json"], cases: () => casesOf(asObject(folder.json("expected.json"), "expected.json")) }];
  },
};

function* casesOf(expected: Fields): Generator<GoldenCase> {
  for (const [index, fields] of asObjects(expected.cases, "cases").entries()) {
    for (const [name, law] of Object.entries(asObject(fields.laws, "laws")))
      yield {
        kind: kindName,
        name: `${index} ${asText(fields.kind, "kind")} ${name}`,
        run: (comparison) => runLaw(fields, name, asObject(law, name), comparison),
      };
  }
}

const tableOf = (value: unknown, place: string): Table =>
  Object.fromEntries(
    Object.entries(asObject(value, place)).map(([context, row]) => [context, Array.from(asNumbers(row, `${place}.${context}`).data)]),
  );

function runLaw(fields: Fields, name: string, law: Fields, comparison: Comparison): void {
  const [p, q] = [tableOf(fields.p, "p"), tableOf(fields.q, "q")];
  const tree = Object.fromEntries(
    Object.entries(asObject(fields.tree, "tree")).map(([context, ids]) => [context, asIntegers(ids, `tree.${context}`)]),
  );
  const rule = lawOf(name, { p, q, tree, chain: asIntegers(fields.chain, "chain") });
  if (!rule) throw new Malformed(`laws: expected a known rule, got ${name}`);
  const own = enumerate(rule);
  const stored = Object.entries(asObject(law.emitted, "emitted")).map(([block, value]) => [block, asNumber(value, block)] as const);
  const blocks = [...new Set([...own.keys(), ...stored.map(([block]) => block)])];
  const byBlock = new Map(stored);
  comparison.numbers(
    "emitted",
    blocks.map((block) => own.get(block) ?? 0),
    blocks.map((block) => byBlock.get(block) ?? 0),
    exact,
  );
  const mean = Array.from(own).reduce((sum, [block, probability]) => sum + probability * block.split(",").length, 0);
  comparison.numbers("meanTokens", [mean], [asNumber(law.meanTokens, "meanTokens")], exact);
  // Whatever was emitted, followed by the target's own tokens, is the target's law.
  const sequences = lawOfSequences(own, (context) => p[context] ?? [], 3);
  const target = lawOfSequences(new Map(p[""].map((probability, id) => [String(id), probability])), (context) => p[context] ?? [], 3);
  const keys = [...new Set([...sequences.keys(), ...target.keys()])];
  comparison.numbers(
    "law of sequences",
    keys.map((key) => sequences.get(key) ?? 0),
    keys.map((key) => target.get(key) ?? 0),
    exact,
  );
}

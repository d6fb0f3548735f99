// Kinds over estimators.json: one function for each key, run over the entries under it.
import type { Comparison } from "./compare.ts";
import { asObjects, type Fields, shorten } from "./fields.ts";
import type { GoldenCase, GoldenKind } from "./kind.ts";

const file = "estimators.json";

export type EstimatorRuns = Readonly<Record<string, (fields: Fields, comparison: Comparison) => void>>;

/** The kind of those keys of the file that `runs` names. */
export function estimatorKind(runs: EstimatorRuns): GoldenKind {
  return {
    recognise(folder) {
      const content = folder.peek(file);
      if (!content || !Object.keys(runs).some((name) => name in content)) return [];
      return [{ name: file, files: [file], shared: true, cases: () => casesOf(content, runs) }];
    },
  };
}

function* casesOf(content: Fields, runs: EstimatorRuns): Generator<GoldenCase> {
  for (const [name, run] of Object.entries(runs)) {
    if (!(name in content)) continue;
    for (const [index, fields] of asObjects(content[name], name).entries())
      yield { kind: `rl/estimators/${name}`, name: shorten(`${name} ${index}`), run: (comparison) => run(fields, comparison) };
  }
}

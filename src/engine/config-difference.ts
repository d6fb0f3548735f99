// Which settings of a run changed between two starts, by dotted path.
import type { Json, JsonRecord } from "./events.ts";

export interface ConfigDifference {
  /** Dotted path: `model.numLayers`. Lists are compared whole. */
  readonly path: string;
  /** Undefined where the configuration has no such key. */
  readonly saved: Json | undefined;
  readonly given: Json | undefined;
}

/** All paths whose values differ, in alphabetical order. */
export function compareConfigs(saved: JsonRecord, given: JsonRecord): ConfigDifference[] {
  const savedLeaves = new Map(leavesOf(saved, ""));
  const givenLeaves = new Map(leavesOf(given, ""));
  const paths = [...new Set([...savedLeaves.keys(), ...givenLeaves.keys()])].sort();
  return paths
    .map((path) => ({ path, saved: savedLeaves.get(path), given: givenLeaves.get(path) }))
    .filter((difference) => JSON.stringify(difference.saved) !== JSON.stringify(difference.given));
}

/** Whether a path is one of `keys` or lies below one of them: the key `loop` covers `loop.steps`. */
export const isCovered = (path: string, keys: readonly string[]): boolean => keys.some((key) => path === key || path.startsWith(`${key}.`));

/** `model.numLayers (saved 6, given 8)`. */
export const describeDifference = ({ path, saved, given }: ConfigDifference): string =>
  `${path} (saved ${JSON.stringify(saved) ?? "nothing"}, given ${JSON.stringify(given) ?? "nothing"})`;

/** Differences in words: of a section whose kind differs the kind alone, because the rest follows from it. */
export function describeDifferences(differences: readonly ConfigDifference[]): string {
  const sections = differences.flatMap(({ path }) => (path.endsWith(".kind") ? [path.slice(0, -"kind".length)] : []));
  const told = differences.filter(({ path }) => path.endsWith(".kind") || !sections.some((section) => path.startsWith(section)));
  return told.map(describeDifference).join(", ");
}

function* leavesOf(value: JsonRecord, prefix: string): Generator<[string, Json]> {
  for (const [key, child] of Object.entries(value)) {
    if (child === undefined) continue;
    // Settings that hold a dot in their key are read as nested ones elsewhere; here the path is only a name.
    const path = `${prefix}${key}`;
    if (isRecord(child) && Object.keys(child).length > 0) yield* leavesOf(child, `${path}.`);
    else yield [path, child];
  }
}

const isRecord = (value: Json): value is JsonRecord => typeof value === "object" && value !== null && !Array.isArray(value);

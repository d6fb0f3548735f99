// Looking into JSON of unknown make without trusting it.
import type { Json, JsonRecord } from "../engine/index.ts";

export const isRecord = (value: unknown): value is JsonRecord => typeof value === "object" && value !== null && !Array.isArray(value);

/** A number, or one of the words that stand for those JSON lacks; `null` counts as NaN. Undefined for anything else. */
export function asNumber(value: unknown): number | undefined {
  if (typeof value === "number") return value;
  if (value === null || value === "NaN") return Number.NaN;
  if (value === "Infinity" || value === "-Infinity") return Number(value);
  return undefined;
}

/** A finite number, else undefined. */
export function asFinite(value: unknown): number | undefined {
  const number = asNumber(value);
  return number !== undefined && Number.isFinite(number) ? number : undefined;
}

export const asText = (value: unknown): string | undefined => (typeof value === "string" && value !== "" ? value : undefined);

export const asList = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);

/** `{ a: { b: 1 } }` → `[["a.b", 1]]`, for tables. Empty objects and lists stay as values. */
export function flatten(record: JsonRecord, prefix = ""): [string, Json][] {
  return Object.entries(record).flatMap(([key, value]): [string, Json][] =>
    isRecord(value) && Object.keys(value).length > 0 ? flatten(value, `${prefix}${key}.`) : [[prefix + key, value]],
  );
}

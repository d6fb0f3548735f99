// Reading golden JSON: every accessor checks what it returns and names the place, so that a damaged file becomes a line that says where.

/** A golden file that is not what its kind documents. */
export class Malformed extends Error {}

export type Fields = Readonly<Record<string, unknown>>;

const show = (value: unknown): string => {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
};

const wrong = (place: string, expected: string, got: unknown): Malformed =>
  new Malformed(`${place}: expected ${expected}, got ${show(got)}`);

export function asObject(value: unknown, place: string): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw wrong(place, "an object", value);
  return value as Fields;
}

export function asList(value: unknown, place: string): readonly unknown[] {
  if (!Array.isArray(value)) throw wrong(place, "a list", value);
  return value;
}

export const asObjects = (value: unknown, place: string): readonly Fields[] =>
  asList(value, place).map((item, i) => asObject(item, `${place}[${i}]`));

export function asText(value: unknown, place: string): string {
  if (typeof value !== "string") throw wrong(place, "a text", value);
  return value;
}

export const asTexts = (value: unknown, place: string): readonly string[] =>
  asList(value, place).map((item, i) => asText(item, `${place}[${i}]`));

export function asInteger(value: unknown, place: string): number {
  if (!Number.isSafeInteger(value)) throw wrong(place, "a whole number", value);
  return value as number;
}

export const asIntegers = (value: unknown, place: string): readonly number[] =>
  asList(value, place).map((item, i) => asInteger(item, `${place}[${i}]`));

/** A number, or one of the strings Infinity, -Infinity and NaN. */
export function asNumber(value: unknown, place: string): number {
  if (typeof value === "number") return value;
  if (value === "Infinity" || value === "-Infinity" || value === "NaN") return Number(value);
  throw wrong(place, "a number", value);
}

/** Numbers of any rank, row-major. */
export interface Numbers {
  readonly data: ArrayLike<number>;
  readonly shape: readonly number[];
}

/** Nested lists of numbers. */
export function asNumbers(value: unknown, place: string): Numbers {
  const shape: number[] = [];
  for (let at = value; Array.isArray(at); at = at[0]) shape.push(at.length);
  const data: number[] = [];
  const read = (at: unknown, depth: number, where: string): void => {
    if (depth === shape.length) {
      data.push(asNumber(at, where));
      return;
    }
    const list = asList(at, where);
    if (list.length !== shape[depth]) throw wrong(where, `${shape[depth]} entries as in its neighbours`, list.length);
    for (const [i, item] of list.entries()) read(item, depth + 1, `${where}[${i}]`);
  };
  read(value, 0, place);
  return { data, shape };
}

/** Numbers by name. */
export const asNamedNumbers = (value: unknown, place: string): ReadonlyMap<string, Numbers> =>
  new Map(Object.entries(asObject(value, place)).map(([name, item]) => [name, asNumbers(item, `${place}.${name}`)]));

/** Short enough for a line. */
export const shorten = (text: string, length = 90): string => (text.length > length ? `${text.slice(0, length - 3)}...` : text);

// Compares what was computed with what is stored, and remembers the worst place. Every kind of golden data goes through here.
import type { Numbers } from "./fields.ts";

export interface Tolerance {
  /** Largest difference. Default 0. */
  absolute?: number;
  /** Largest difference as a multiple of the largest finite absolute value of the stored array. Default 0. The larger of the two counts. */
  relative?: number;
}

interface Worst {
  place: string;
  /** Difference over tolerance; Infinity where nothing may differ. */
  ratio: number;
  text: string;
}

const format = (value: number): string => (Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(9))));
const show = (value: unknown): string => {
  const text = typeof value === "number" ? format(value) : (JSON.stringify(value) ?? "nothing");
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
};

export class Comparison {
  /** Values compared so far. */
  numCompared = 0;
  numWrong = 0;
  #worst: Worst | undefined;
  #largest: { difference: number; tolerance: number } | undefined;

  /** Numbers against numbers of the same count. NaN equals NaN, infinities equal themselves only. */
  numbers(
    place: string,
    actual: ArrayLike<number>,
    expected: Numbers | ArrayLike<number>,
    { absolute = 0, relative = 0 }: Tolerance,
  ): void {
    const { data, shape } = "data" in expected ? expected : { data: expected, shape: [expected.length] };
    if (actual.length !== data.length) {
      this.#count(place, Number.POSITIVE_INFINITY, `expected ${data.length} numbers, got ${actual.length}`);
      return;
    }
    let largest = 0;
    for (let i = 0; i < data.length; i++) if (Number.isFinite(data[i])) largest = Math.max(largest, Math.abs(data[i]));
    const tolerance = Math.max(absolute, relative * largest);
    for (let i = 0; i < data.length; i++) {
      const difference = Object.is(actual[i], data[i]) || actual[i] === data[i] ? 0 : Math.abs(actual[i] - data[i]);
      // An infinity against another one, or a NaN against a number.
      const error = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference;
      if (error <= tolerance) {
        this.numCompared++;
        if (!this.#largest || error * this.#largest.tolerance > this.#largest.difference * tolerance)
          this.#largest = { difference: error, tolerance };
        continue;
      }
      const text = `expected ${format(data[i])}, got ${format(actual[i])} (difference ${error.toPrecision(3)}, tolerance ${tolerance.toPrecision(3)})`;
      this.#count(place + indexOf(i, shape), error / tolerance, text);
    }
    if (data.length === 0) this.numCompared++;
  }

  /** Texts, ids, decisions, flags, and lists and objects of them: equal or wrong. Named fields of `actual` beyond those stored do not count. */
  exact(place: string, actual: unknown, expected: unknown): void {
    if (Array.isArray(expected) || ArrayBuffer.isView(expected)) {
      const [stored, computed] = [listOf(expected), listOf(actual)];
      if (!computed) {
        this.#count(place, Number.POSITIVE_INFINITY, `expected ${show(expected)}, got ${show(actual)}`);
        return;
      }
      const length = Math.max(stored?.length ?? 0, computed.length);
      let isWrong = false;
      for (let i = 0; i < length && !isWrong; i++) {
        const before = this.numWrong;
        this.exact(`${place}[${i}]`, i < computed.length ? computed[i] : undefined, stored?.[i]);
        // What follows the first wrong id of a sequence is mostly its consequence.
        isWrong = this.numWrong > before;
      }
      if (length === 0) this.numCompared++;
      return;
    }
    if (typeof expected === "object" && expected !== null) {
      const computed = (typeof actual === "object" && actual !== null ? actual : {}) as Readonly<Record<string, unknown>>;
      for (const [name, value] of Object.entries(expected)) this.exact(`${place}.${name}`, computed[name], value);
      return;
    }
    if (Object.is(actual, expected)) this.numCompared++;
    else this.#count(place, Number.POSITIVE_INFINITY, `expected ${show(expected)}, got ${show(actual)}`);
  }

  /** What a line says after the name of the case. */
  get summary(): string {
    if (this.#worst) {
      const others = this.numWrong > 1 ? `; ${this.numWrong} of ${this.numCompared} values are wrong` : "";
      return `${this.#worst.place}: ${this.#worst.text}${others}`;
    }
    if (this.numCompared === 0) return "nothing was compared";
    const largest = this.#largest;
    return largest && largest.difference > 0
      ? `largest error ${largest.difference.toPrecision(2)} of ${largest.tolerance.toPrecision(2)}`
      : "";
  }

  get passed(): boolean {
    return this.numWrong === 0 && this.numCompared > 0;
  }

  #count(place: string, ratio: number, text: string): void {
    this.numCompared++;
    this.numWrong++;
    if (!this.#worst || ratio > this.#worst.ratio) this.#worst = { place, ratio, text };
  }
}

const listOf = (value: unknown): ArrayLike<unknown> | undefined =>
  Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView)) ? (value as ArrayLike<unknown>) : undefined;

/** `[i][j]` of a flat index. */
function indexOf(flat: number, shape: readonly number[]): string {
  const indices: number[] = [];
  let rest = flat;
  for (const size of shape.toReversed()) {
    indices.unshift(rest % size);
    rest = Math.floor(rest / size);
  }
  return indices.map((index) => `[${index}]`).join("");
}

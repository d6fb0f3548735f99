// Plain TypeScript arrays with a shape: what the tests compare operators with. Nothing here is fast.

export interface Dense {
  readonly shape: readonly number[];
  readonly data: ArrayLike<number>;
}

/** The array whose element at each index is `element(index)`. */
export function tabulate(shape: readonly number[], element: (...index: number[]) => number): Dense {
  const size = shape.reduce((a, b) => a * b, 1);
  const data = new Float64Array(size);
  for (let flat = 0; flat < size; flat++) data[flat] = element(...unravel(flat, shape));
  return { shape, data };
}

export function unravel(flat: number, shape: readonly number[]): number[] {
  const index = new Array<number>(shape.length);
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    index[axis] = flat % shape[axis];
    flat = Math.floor(flat / shape[axis]);
  }
  return index;
}

/** Element of `x` as NumPy would broadcast it: leading indices beyond its rank are dropped, axes of size 1 repeat. */
export function at(x: Dense, index: readonly number[]): number {
  const { shape, data } = x;
  const own = index.slice(index.length - shape.length);
  return data[own.reduce((flat, i, axis) => flat * shape[axis] + (shape[axis] === 1 ? 0 : i), 0)];
}

export function broadcastShape(...shapes: (readonly number[])[]): number[] {
  const rank = Math.max(...shapes.map((shape) => shape.length));
  return Array.from({ length: rank }, (_, i) => {
    const sizes = shapes.map((shape) => shape[i - rank + shape.length] ?? 1);
    return sizes.find((size) => size !== 1) ?? 1;
  });
}

/** `f` elementwise over arrays that broadcast. */
export function elementwise(f: (...values: number[]) => number, ...inputs: Dense[]): Dense {
  return tabulate(broadcastShape(...inputs.map(({ shape }) => shape)), (...index) => f(...inputs.map((x) => at(x, index))));
}

/** `f` of all elements along `axes`. */
export function reduce(x: Dense, axes: readonly number[], keepDims: boolean, f: (values: number[]) => number): Dense {
  const kept = x.shape.map((size, axis) => (axes.includes(axis) ? 1 : size));
  const result = tabulate(kept, (...index) => {
    const inner = tabulate(
      axes.map((axis) => x.shape[axis]),
      (...position) => at(x, substitute(index, axes, position)),
    );
    return f(Array.from(inner.data));
  });
  return keepDims ? result : { shape: x.shape.filter((_, axis) => !axes.includes(axis)), data: result.data };
}

/** `index` with other positions along `axes`. */
export function substitute(index: readonly number[], axes: readonly number[], positions: readonly number[]): number[] {
  return index.map((i, axis) => (axes.includes(axis) ? positions[axes.indexOf(axis)] : i));
}

/** `f` of each row along `axis`, which gives a row of the same length. */
export function mapRows(x: Dense, axis: number, f: (row: number[]) => ArrayLike<number>): Dense {
  const row = (index: readonly number[]): number[] =>
    Array.from({ length: x.shape[axis] }, (_, i) => at(x, substitute(index, [axis], [i])));
  return tabulate(x.shape, (...index) => f(row(index))[index[axis]]);
}

export const total = (values: ArrayLike<number>): number => Array.from(values).reduce((a, b) => a + b, 0);

/** Uniform numbers in [0, 1) from a seed (a 32-bit linear congruential generator, its high bits). */
export function uniforms(seed: number): () => number {
  let state = (seed * 2654435761 + 12345) >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 8) / 2 ** 24;
  };
}

/** Seeded uniform numbers in [low, high). */
export function randomDense(seed: number, shape: readonly number[], low = -2, high = 2): Dense {
  const next = uniforms(seed);
  for (let i = 0; i < 3; i++) next();
  return tabulate(shape, () => low + (high - low) * next());
}

import { describe, expect, test } from "vitest";
import { bufferFrom } from "../runtime/buffer.ts";
import { embedding, gather, gatherElements, iota, oneHot, scatterElementsAdd } from "./gather.ts";
import { bufferOf, checkDerivatives, evaluate } from "./testing/derivatives.ts";
import { at, type Dense, substitute, tabulate, unravel } from "./testing/reference.ts";

const gathered = (x: Dense, indices: Dense, axis: number): Dense =>
  tabulate([...x.shape.slice(0, axis), ...indices.shape, ...x.shape.slice(axis + 1)], (...index) => {
    const i = at(indices, index.slice(axis, axis + indices.shape.length));
    return at(x, [...index.slice(0, axis), i < 0 ? i + x.shape[axis] : i, ...index.slice(axis + indices.shape.length)]);
  });

describe("gather", () => {
  for (const [shape, indices, axis] of [
    [[4], { shape: [3], data: [1, 3, 1] }, 0],
    [[3, 2], { shape: [2, 2], data: [0, 2, 2, 2] }, 0],
    [[2, 3, 2], { shape: [4], data: [2, 2, 0, 2] }, 1],
    [[2, 3], { shape: [], data: [2] }, 1],
    [[2, 3], { shape: [2], data: [-1, 0] }, 1],
    [[2, 3], { shape: [0], data: [] }, 0],
    [[0, 3], { shape: [2], data: [1, 1] }, 1],
  ] as [number[], Dense, number][]) {
    for (const dtype of ["i64", "i32"] as const) {
      checkDerivatives(`[${shape}] at [${indices.data}] ${dtype} along ${axis}`, (x, n) => gather(x, n, axis), [shape], {
        others: [bufferOf(dtype, indices)],
        reference: (x, n) => gathered(x, n, axis),
      });
    }
  }
  checkDerivatives("embedding", (table, ids) => embedding(table, ids), [[5, 3]], {
    others: [bufferFrom("i64", [2, 3], [4, 0, 4, 4, 1, 0])],
    reference: (table, ids) => gathered(table, ids, 0),
  });
});

describe("gatherElements and scatterElementsAdd", () => {
  const taken = (x: Dense, indices: Dense, axis: number): Dense =>
    tabulate(
      indices.shape,
      (...index) => x.data[substitute(index, [axis], [at(indices, index)]).reduce((flat, i, a) => flat * x.shape[a] + i, 0)],
    );
  const scattered = (base: Dense, updates: Dense, indices: Dense, axis: number): Dense => {
    const data = Float64Array.from(base.data);
    for (let flat = 0; flat < updates.data.length; flat++) {
      const place = substitute(unravel(flat, updates.shape), [axis], [indices.data[flat]]);
      data[place.reduce((all, i, a) => all * base.shape[a] + i, 0)] += updates.data[flat];
    }
    return { shape: base.shape, data };
  };
  const cases: [shape: number[], indices: Dense, axis: number][] = [
    [[4], { shape: [3], data: [3, 1, 3] }, 0],
    [[2, 3], { shape: [2, 2], data: [0, 0, 2, 1] }, 1],
    [[3, 2], { shape: [4, 2], data: [0, 1, 0, 1, 0, 2, 2, 1] }, 0],
    [[2, 3, 2], { shape: [2, 2, 2], data: [0, 1, 0, 1, 2, 2, 2, 2] }, 1],
    [[3, 2], { shape: [2, 1], data: [1, 1] }, 1],
    [[2, 3], { shape: [2, 0], data: [] }, 1],
    [[0, 3], { shape: [0, 2], data: [] }, 1],
  ];
  for (const [shape, indices, axis] of cases) {
    const others = [bufferOf("i64", indices)];
    checkDerivatives(`[${shape}] read at [${indices.data}] along ${axis}`, (x, n) => gatherElements(x, n, axis), [shape], {
      others,
      reference: (x, n) => taken(x, n, axis),
    });
    checkDerivatives(
      `[${shape}] added to at [${indices.data}] along ${axis}`,
      (x, u, n) => scatterElementsAdd(x, n, u, axis),
      [shape, [...indices.shape]],
      {
        others,
        reference: (x, u, n) => scattered(x, u, n, axis),
      },
    );
  }
  test("many repeated indices add up exactly, run after run", () => {
    const count = 4096;
    const ids = bufferFrom(
      "i64",
      [count],
      Array.from({ length: count }, (_, i) => (i * i) % 7),
    );
    const inputs = [bufferFrom("f32", [7], new Float32Array(7)), ids, bufferFrom("f32", [count], new Float32Array(count).fill(1))];
    const expected = Array.from({ length: 7 }, (_, id) => Array.from(ids.data).filter((own) => Number(own) === id).length);
    for (let run = 0; run < 5; run++) expect(evaluate((x, n, u) => scatterElementsAdd(x, n, u), inputs)[0].data).toEqual(expected);
  });
});

test("oneHot and iota", () => {
  const [hot, double, count] = evaluate(
    (n) => [oneHot(n, 3), oneHot(n, 2, "f64"), iota(n, 4, "f32")],
    [bufferFrom("i32", [2, 2], [0, 2, 1, 5])],
  );
  expect([hot.dtype, hot.shape, hot.data]).toEqual(["f32", [2, 2, 3], [1, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0]]);
  expect([double.dtype, double.data]).toEqual(["f64", [1, 0, 0, 0, 0, 1, 0, 0]]);
  expect(count.data).toEqual([0, 1, 2, 3]);
});

describe("mistakes", () => {
  const x = bufferFrom("f32", [2, 3], [1, 2, 3, 4, 5, 6]);
  const ids = bufferFrom("i64", [3, 1], [0, 0, 0]);
  test("are named", () => {
    expect(() => evaluate((a) => gather(a, a), [x])).toThrow("gather: expected i64 or i32 indices, got f32[2, 3]");
    expect(() => evaluate((a, n) => gatherElements(a, n, 1), [x, ids])).toThrow(
      "gatherElements: expected indices of the shape of f32[2, 3] except along axis 1, got i64[3, 1]",
    );
    expect(() => evaluate((a, n) => scatterElementsAdd(a, n, a, 0), [x, ids])).toThrow(
      "scatterElementsAdd: expected updates of the shape of the indices i64[3, 1], got f32[2, 3]",
    );
    expect(() => evaluate((a) => oneHot(a, 3), [x])).toThrow("oneHot: expected i64 or i32 indices, got f32[2, 3]");
  });
  test("an index outside is an error of the run, not a read outside", () => {
    expect(() => evaluate((a, n) => gather(a, n, 0), [x, bufferFrom("i64", [1], [2])])).toThrow(/out of .*bounds|out of range/i);
    expect(() => evaluate((a, n) => gatherElements(a, n, 0), [x, bufferFrom("i64", [1, 3], [0, 1, -3])])).toThrow(
      /out of .*bounds|out of range/i,
    );
    expect(() => evaluate((a, n) => scatterElementsAdd(a, n, a, 0), [x, bufferFrom("i64", [2, 3], [0, 1, 2, 0, 0, 0])])).toThrow(
      /out of .*bounds|out of range/i,
    );
  });
});

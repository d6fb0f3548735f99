// Products of groups of rows against loops, with an empty group, an uneven one and one row; derivatives to the second order.
import { bufferFrom, type TensorBuffer } from "../runtime/buffer.ts";
import { groupedLinear, groupedOuter, permuteRows } from "./grouped-linear.ts";
import { checkDerivatives } from "./testing/derivatives.ts";
import type { Dense } from "./testing/reference.ts";

const [rows, groups, out, inner] = [6, 4, 3, 2];
const ends = (...values: number[]): TensorBuffer => bufferFrom("i64", [groups], BigInt64Array.from(values, BigInt));
const groupOf = (row: number, limits: Dense): number => Array.from(limits.data).findIndex((end) => row < end);

for (const [name, limits] of [
  ["with empty groups", ends(2, 2, 5, 6)],
  ["with all rows in the last group", ends(0, 0, 0, 6)],
] as const) {
  checkDerivatives(
    `groupedLinear ${name}`,
    (x, weight, at) => groupedLinear(x, weight, at),
    [
      [rows, inner],
      [groups, out, inner],
    ],
    {
      others: [limits],
      reference: (x, weight, at) => ({
        shape: [rows, out],
        data: Float64Array.from({ length: rows * out }, (_, i) => {
          const [row, o] = [Math.floor(i / out), i % out];
          const matrix = (groupOf(row, at) * out + o) * inner;
          return [0, 1].reduce((sum, c) => sum + x.data[row * inner + c] * weight.data[matrix + c], 0);
        }),
      }),
    },
  );

  checkDerivatives(
    `groupedLinear, transposed, ${name}`,
    (x, weight, at) => groupedLinear(x, weight, at, { transposed: true }),
    [
      [rows, out],
      [groups, out, inner],
    ],
    {
      others: [limits],
      reference: (x, weight, at) => ({
        shape: [rows, inner],
        data: Float64Array.from({ length: rows * inner }, (_, i) => {
          const [row, c] = [Math.floor(i / inner), i % inner];
          return [0, 1, 2].reduce((sum, o) => sum + x.data[row * out + o] * weight.data[(groupOf(row, at) * out + o) * inner + c], 0);
        }),
      }),
    },
  );

  checkDerivatives(
    `groupedOuter ${name}`,
    (a, b, at) => groupedOuter(a, b, at),
    [
      [rows, out],
      [rows, inner],
    ],
    {
      others: [limits],
      reference: (a, b, at) => {
        const data = new Float64Array(groups * out * inner);
        for (let row = 0; row < rows; row++)
          for (let o = 0; o < out; o++)
            for (let c = 0; c < inner; c++)
              data[(groupOf(row, at) * out + o) * inner + c] += a.data[row * out + o] * b.data[row * inner + c];
        return { shape: [groups, out, inner], data };
      },
    },
  );
}

const order = [3, 0, 5, 1, 4, 2];
const inverse = order.map((_, i) => order.indexOf(i));
checkDerivatives("permuteRows", (x, to, from) => permuteRows(x, to, from), [[rows, inner]], {
  others: [order, inverse].map((list) => bufferFrom("i64", [rows], BigInt64Array.from(list, BigInt))),
  reference: (x) => ({
    shape: [rows, inner],
    data: Float64Array.from({ length: rows * inner }, (_, i) => x.data[order[Math.floor(i / inner)] * inner + (i % inner)]),
  }),
});

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { bufferFrom } from "../runtime/buffer.ts";
import { mul } from "./elementwise.ts";
import { einsum, linear, matmul } from "./matmul.ts";
import { bufferOf, checkDerivatives, close, evaluate } from "./testing/derivatives.ts";
import { at, broadcastShape, type Dense, randomDense, tabulate } from "./testing/reference.ts";

const swapped = <T>(shape: readonly T[]): T[] => [...shape.slice(0, -2), ...shape.slice(-1), ...shape.slice(-2, -1)];
const swap = (x: Dense): Dense => tabulate(swapped(x.shape), (...index) => at(x, swapped(index)));

function product(a: Dense, b: Dense, alpha = 1): Dense {
  const [m, k, n] = [a.shape.at(-2) as number, a.shape.at(-1) as number, b.shape.at(-1) as number];
  return tabulate([...broadcastShape(a.shape.slice(0, -2), b.shape.slice(0, -2)), m, n], (...index) => {
    const [batch, row, column] = [index.slice(0, -2), index.at(-2) as number, index.at(-1) as number];
    let sum = 0;
    for (let i = 0; i < k; i++) sum += at(a, [...batch, row, i]) * at(b, [...batch, i, column]);
    return alpha * sum;
  });
}

describe("matmul", () => {
  // Shapes of the factors as they are multiplied.
  const shapes: [a: number[], b: number[]][] = [
    [
      [2, 3],
      [3, 2],
    ],
    [
      [2, 2, 3],
      [3, 2],
    ],
    [
      [2, 3],
      [2, 3, 2],
    ],
    [
      [2, 2, 3],
      [2, 3, 1],
    ],
    [
      [2, 1, 2, 3],
      [1, 2, 3, 2],
    ],
    [
      [2, 1, 2],
      [2, 2, 2, 3],
    ],
  ];
  const flags = [false, true];
  for (const [a, b] of shapes) {
    for (const transposeA of flags) {
      for (const transposeB of flags) {
        // 1/√3 is no float32: a float64 product must not round it.
        const alpha = transposeA === transposeB ? 1 / Math.sqrt(3) : 1;
        const name = `[${a}]${transposeA ? "ᵀ" : ""} × [${b}]${transposeB ? "ᵀ" : ""} · ${alpha.toFixed(2)}`;
        checkDerivatives(
          name,
          (x, y) => matmul(x, y, { transposeA, transposeB, alpha }),
          [transposeA ? swapped(a) : a, transposeB ? swapped(b) : b],
          {
            reference: (x, y) => product(transposeA ? swap(x) : x, transposeB ? swap(y) : y, alpha),
          },
        );
      }
    }
  }
  for (const [a, b] of [
    [
      [0, 3],
      [3, 2],
    ],
    [
      [2, 3],
      [3, 0],
    ],
    [
      [2, 0],
      [0, 3],
    ],
    [
      [2, 2, 0],
      [0, 3],
    ],
    [
      [2, 2, 0],
      [2, 0, 3],
    ],
    [
      [0, 2, 3],
      [3, 2],
    ],
    [
      [0, 2, 3],
      [1, 3, 2],
    ],
    [
      [1, 1],
      [1, 1],
    ],
  ]) {
    for (const alpha of [1, 0.3]) {
      checkDerivatives(`[${a}] × [${b}] · ${alpha}`, (x, y) => matmul(x, y, { alpha }), [a, b], {
        reference: (x, y) => product(x, y, alpha),
      });
      checkDerivatives(`[${a}] × [${b}]ᵀ · ${alpha}`, (x, y) => matmul(x, y, { alpha, transposeB: true }), [a, swapped(b)], {
        reference: (x, y) => product(x, swap(y), alpha),
      });
    }
  }
  checkDerivatives(
    "a factor beside a float64 product is not rounded to float32",
    (x, y) => mul(matmul(mul(x, 1 / 3), y), 0.7),
    [
      [2, 2, 3],
      [2, 3, 2],
    ],
    {
      reference: (x, y) => product(x, y, 0.7 / 3),
    },
  );
  checkDerivatives("a matrix by itself", (x) => matmul(x, x, { transposeB: true }), [[2, 3]], { reference: (x) => product(x, swap(x)) });

  test("what does not fit is refused with both shapes", () => {
    const inputs = [
      bufferFrom("f32", [2, 3], new Float32Array(6)),
      bufferFrom("f32", [3], [1, 2, 3]),
      bufferFrom("f32", [2, 2, 3], new Float32Array(12)),
      bufferFrom("f32", [3, 2, 3], new Float32Array(18)),
    ];
    expect(() => evaluate((a) => matmul(a, a), inputs)).toThrow("matmul: expected equal inner dimensions, got f32[2, 3] × f32[2, 3]");
    expect(() => evaluate((a, b) => matmul(a, b), inputs)).toThrow("matmul: expected matrices, got f32[2, 3] × f32[3]");
    expect(() => evaluate((_, __, c, d) => matmul(c, d, { transposeB: true }), inputs)).toThrow(
      "matmul: expected shapes that broadcast, got [2] and [3]",
    );
  });
});

describe("linear", () => {
  for (const shape of [[3], [2, 3], [2, 2, 3], [2, 1, 2, 3], [0, 3]]) {
    checkDerivatives(`[${shape}] with bias`, (x, w, b) => linear(x, w, b), [shape, [2, 3], [2]], {
      reference: (x, w, b) => {
        const rows = product({ shape: [x.data.length / 3, 3], data: x.data }, swap(w));
        return { shape: [...shape.slice(0, -1), 2], data: Float64Array.from(rows.data, (value, i) => value + b.data[i % 2]) };
      },
    });
    checkDerivatives(`[${shape}] without`, (x, w) => linear(x, w), [shape, [2, 3]]);
  }
  // With many rows the bias is added apart.
  checkDerivatives("many rows", (x, w, b) => linear(x, w, b), [[130, 1], [2, 1], [2]], {
    reference: (x, w, b) => tabulate([130, 2], (i, j) => at(x, [i, 0]) * at(w, [j, 0]) + at(b, [j])),
  });
  checkDerivatives("no inputs", (x, w, b) => linear(x, w, b), [[2, 2, 0], [3, 0], [3]], {
    reference: (_, __, b) => tabulate([2, 2, 3], (_i, _j, k) => at(b, [k])),
  });
  test("what does not fit is refused", () => {
    const inputs = [
      bufferFrom("f32", [2, 3], new Float32Array(6)),
      bufferFrom("f32", [4, 2], new Float32Array(8)),
      bufferFrom("f32", [4, 3], new Float32Array(12)),
    ];
    expect(() => evaluate((x, w) => linear(x, w), inputs)).toThrow(
      "linear: expected an input [..., in] and a weight [out, in], got f32[2, 3] and f32[4, 2]",
    );
    expect(() => evaluate((x, _, w) => linear(x, w, x), inputs)).toThrow("linear: expected a bias [4], got f32[2, 3]");
  });
});

/** Σ over the letters that the output lacks, by brute force. */
function contraction(equation: string, a: Dense, b: Dense): Dense {
  const [left, right, output] = equation.split(/,|->/);
  const sizes = new Map<string, number>();
  for (const [i, letter] of [...left].entries()) sizes.set(letter, a.shape[i]);
  for (const [i, letter] of [...right].entries()) sizes.set(letter, b.shape[i]);
  const size = (letters: readonly string[]): number[] => letters.map((letter) => sizes.get(letter) as number);
  const summed = [...sizes.keys()].filter((letter) => !output.includes(letter));
  return tabulate(size([...output]), (...index) => {
    const inner = tabulate(size(summed), (...position) => {
      const value = (letter: string): number =>
        output.includes(letter) ? index[output.indexOf(letter)] : position[summed.indexOf(letter)];
      return at(a, [...left].map(value)) * at(b, [...right].map(value));
    });
    return Array.from(inner.data).reduce((x, y) => x + y, 0);
  });
}

describe("einsum", () => {
  for (const [equation, a, b] of [
    ["ij,jk->ik", [2, 3], [3, 2]],
    ["bthd,bshd->bhts", [1, 2, 2, 3], [1, 3, 2, 3]],
    ["bhts,bshd->bthd", [1, 2, 2, 3], [1, 3, 2, 2]],
    ["i,j->ij", [2], [3]],
    ["i,i->", [3], [3]],
    ["ij,ij->ij", [2, 3], [2, 3]],
    ["ij,k->ki", [2, 3], [2]],
    [",i->i", [], [3]],
    ["ba,cab->ca", [2, 3], [2, 3, 2]],
    ["ij,jk->ik", [2, 0], [0, 3]],
    ["bij,bjk->bik", [0, 2, 3], [0, 3, 2]],
  ] as [string, number[], number[]][]) {
    checkDerivatives(`${equation} [${a}] [${b}]`, (x, y) => einsum(equation, x, y), [a, b], {
      reference: (x, y) => contraction(equation, x, y),
    });
  }

  test("any equation of two operands", () => {
    const letters = "abcde";
    const operand = fc
      .subarray([...letters], { minLength: 0, maxLength: 4 })
      .chain((chosen) => fc.shuffledSubarray(chosen, { minLength: chosen.length }));
    const equations = fc.tuple(operand, operand).chain(([left, right]) => {
      const all = [...new Set([...left, ...right])];
      return fc.tuple(
        fc.constant(left),
        fc.constant(right),
        fc.shuffledSubarray(all),
        fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 5, maxLength: 5 }),
      );
    });
    fc.assert(
      fc.property(equations, ([left, right, output, sizes]) => {
        const shape = (operandLetters: string[]): number[] => operandLetters.map((letter) => sizes[letters.indexOf(letter)]);
        const equation = `${left.join("")},${right.join("")}->${output.join("")}`;
        const [a, b] = [randomDense(1, shape(left)), randomDense(2, shape(right))];
        const [y] = evaluate((x, z) => einsum(equation, x, z), [bufferOf("f64", a), bufferOf("f64", b)]);
        const expected = contraction(equation, a, b);
        expect(y.shape).toEqual(expected.shape);
        close(equation, y.data, expected.data, 1e-12);
      }),
      { numRuns: 60, seed: 20 },
    );
  });

  test("a wrong equation is explained", () => {
    const failing = (equation: string) => () => evaluate((x) => einsum(equation, x, x), [bufferFrom("f32", [2, 3], new Float32Array(6))]);
    expect(failing("ij,jk")).toThrow("not of this form");
    expect(failing("ij,j->i")).toThrow("one letter an axis");
    expect(failing("ii,jk->j")).toThrow("a letter is repeated within one operand");
    expect(failing("ij,ij->k")).toThrow('"k" is in no operand');
    expect(failing("ij,jk->ik")).toThrow(
      'einsum: expected "ab,bc->ac" with operands that fit, got "ij,jk->ik" for f32[2, 3] and f32[2, 3]: "j" is both 3 and 2',
    );
  });
});

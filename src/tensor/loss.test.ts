import { describe, expect, test } from "vitest";
import { bufferFrom } from "../runtime/buffer.ts";
import { reshape, sum } from "./core.ts";
import { mul, neg } from "./elementwise.ts";
import { gatherElements } from "./gather.ts";
import { gradients } from "./gradient.ts";
import { crossEntropy, labelLogProbs, smoothedCrossEntropy } from "./loss.ts";
import { logSoftmax } from "./norm.ts";
import { checkDerivatives, close, evaluate } from "./testing/derivatives.ts";
import { at, type Dense, tabulate, total } from "./testing/reference.ts";

const logProb = (logits: Dense, index: readonly number[], label: number): number => {
  const row = Array.from({ length: logits.shape.at(-1) as number }, (_, i) => at(logits, [...index, i]));
  const top = Math.max(...row);
  return row[label] - top - Math.log(total(row.map((x) => Math.exp(x - top))));
};

const cases: [logits: number[], labels: number[]][] = [
  [[3], [1]],
  [
    [2, 3],
    [2, 2],
  ],
  [
    [2, 2, 3],
    [0, 1, 2, 1],
  ],
  [
    [1, 1, 2, 2],
    [1, 0],
  ],
  [
    [2, 1],
    [0, 0],
  ],
  [[0, 3], []],
];

describe.each(["i64", "i32"] as const)("labels %s", (dtype) => {
  for (const [shape, labels] of cases) {
    const others = [bufferFrom(dtype, shape.slice(0, -1), labels)];
    const reference = (logits: Dense, ids: Dense): Dense => tabulate(ids.shape, (...index) => -logProb(logits, index, at(ids, index)));
    checkDerivatives(`crossEntropy [${shape}]`, (logits, ids) => crossEntropy(logits, ids), [shape], { others, reference });
    if (dtype === "i32") continue;
    checkDerivatives(`labelLogProbs [${shape}]`, (logits, ids) => labelLogProbs(logits, ids), [shape], {
      others,
      reference: (logits, ids) => tabulate(ids.shape, (...index) => logProb(logits, index, at(ids, index))),
    });
    for (const smoothing of [0, 0.1]) {
      checkDerivatives(
        `smoothedCrossEntropy ${smoothing} [${shape}]`,
        (logits, ids) => smoothedCrossEntropy(logits, ids, smoothing),
        [shape],
        {
          others,
          reference: (logits, ids) =>
            tabulate(ids.shape, (...index) => {
              const vocabulary = shape.at(-1) as number;
              const all = Array.from({ length: vocabulary }, (_, i) => logProb(logits, index, i));
              return -(1 - smoothing) * all[at(ids, index)] - (smoothing / vocabulary) * total(all);
            }),
        },
      );
    }
  }
});

test("the fused derivative is that of the parts", () => {
  const logits = bufferFrom(
    "f64",
    [4, 5],
    Array.from({ length: 20 }, (_, i) => 3 * Math.cos(i * i)),
  );
  const labels = bufferFrom("i64", [4], [0, 4, 2, 2]);
  const [fused, parts] = evaluate(
    (x, ids) => {
      const composed = neg(reshape(gatherElements(logSoftmax(x), reshape(ids, [4, 1]), 1), [4]));
      const squares = [crossEntropy(x, ids), composed].map((loss) => gradients(sum(mul(loss, loss)), [x])[0]);
      return squares.map((g) => gradients(sum(mul(g, g)), [x])[0]);
    },
    [logits, labels],
  );
  close("second derivatives", fused.data, parts.data, 1e-13);
});

test("masked and large logits in float32 give finite losses and derivatives", () => {
  const rows = [
    [1e4, -1e4, 0],
    [-1e30, 2, -1e30],
    [1e30, 0, -1e30],
    [-1e30, -1e30, -1e30],
  ];
  const inputs = [bufferFrom("f32", [4, 3], rows.flat()), bufferFrom("i64", [4], [1, 1, 0, 2])];
  for (const loss of [crossEntropy, (x: Parameters<typeof crossEntropy>[0], ids: typeof x) => smoothedCrossEntropy(x, ids, 0.1)]) {
    const [y, first, second] = evaluate((x, ids) => {
      const value = loss(x, ids);
      const [g] = gradients(sum(value), [x]);
      return [value, g, gradients(sum(mul(g, g)), [x])[0]];
    }, inputs);
    for (const { data } of [y, first, second]) expect(data.every(Number.isFinite)).toBe(true);
    if (loss === crossEntropy) close("losses", y.data, [2e4, 0, 0, Math.log(3)], 1e-6);
    if (loss === crossEntropy) close("derivatives", first.data, [1, -1, 0, 0, 0, 0, 0, 0, 0, 1 / 3, 1 / 3, -2 / 3], 1e-6);
  }
});

test("labels of another shape are refused", () => {
  const inputs = [bufferFrom("f32", [2, 3], new Float32Array(6)), bufferFrom("i64", [3], [0, 0, 0])];
  expect(() => evaluate((x, ids) => crossEntropy(x, ids), inputs)).toThrow(
    "expected logits [..., vocabulary] and labels [...], got f32[2, 3] and i64[3]",
  );
});

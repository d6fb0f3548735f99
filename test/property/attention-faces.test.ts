// Attention in its three faces, written with the operators alone: parallel (training), chunked (prefill, state carried from chunk to chunk)
// and recurrent or cached (one token, state in and out) compute the same function and have the same derivatives.
// Letters: B batch, H heads, T time, D head width. Softmax carries keys and values, linear attention S [B, H, D, D] and z [B, H, D, 1].
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { allocate, bufferFrom, type TensorBuffer } from "../../src/runtime/buffer.ts";
import { compile, spec } from "../../src/runtime/program.ts";
import { eluPlusOne } from "../../src/tensor/activation.ts";
import { constant, sum } from "../../src/tensor/core.ts";
import { add, div, mul } from "../../src/tensor/elementwise.ts";
import { gradients, vjp } from "../../src/tensor/gradient.ts";
import type { Tensor } from "../../src/tensor/graph.ts";
import { matmul } from "../../src/tensor/matmul.ts";
import { softmax } from "../../src/tensor/norm.ts";
import { concat, slice, transpose } from "../../src/tensor/shape.ts";
import { cachedSoftmax } from "../../src/tensor/testing/cached-softmax.ts";
import { bufferOf, close, evaluate, testBackend } from "../../src/tensor/testing/derivatives.ts";
import { randomDense } from "../../src/tensor/testing/reference.ts";

type Qkv = readonly [query: Tensor, key: Tensor, value: Tensor];
type State = readonly Tensor[];
const epsilon = 1e-6;

/** [rows, columns]: `kept` where column ≤ row + offset, else `other`. */
function triangle(like: Tensor, rows: number, columns: number, offset: number, kept: number, other: number): Tensor {
  const data = Float64Array.from({ length: rows * columns }, (_, i) => (i % columns <= Math.floor(i / columns) + offset ? kept : other));
  return constant(like.graph, "f64", [rows, columns], data);
}

function softmaxParallel([query, key, value]: Qkv): Tensor {
  const [time, width] = query.shape.slice(-2) as number[];
  const scores = matmul(query, key, { transposeB: true, alpha: 1 / Math.sqrt(width) });
  return matmul(softmax(add(scores, triangle(query, time, time, 0, 0, -1e30))), value);
}

/** State: all keys and values so far, absent before the first chunk. */
function softmaxChunk([query, key, value]: Qkv, [pastKey, pastValue]: State): { output: Tensor; state: State } {
  const [time, width] = query.shape.slice(-2) as number[];
  const keys = pastKey ? concat([pastKey, key], 2) : key;
  const values = pastValue ? concat([pastValue, value], 2) : value;
  const total = keys.shape[2] as number;
  const scores = matmul(query, keys, { transposeB: true, alpha: 1 / Math.sqrt(width) });
  const output = matmul(softmax(add(scores, triangle(query, time, total, total - time, 0, -1e30))), values);
  return { output, state: [keys, values] };
}

// Katharopoulos et al. 2020, Eq. 9 with the mask of Eq. 8: o_i = φ(q_i)ᵀ Σ φ(k_j) v_jᵀ / (φ(q_i)ᵀ Σ φ(k_j) + ε), j ≤ i.
function linearParallel([query, key, value]: Qkv): Tensor {
  const time = query.shape[2] as number;
  const weights = mul(matmul(eluPlusOne(query), eluPlusOne(key), { transposeB: true }), triangle(query, time, time, 0, 1, 0));
  return div(matmul(weights, value), add(sum(weights, { axes: -1, keepDims: true }), epsilon));
}

/** State: S = Σ φ(k) vᵀ and z = Σ φ(k), absent before the first chunk. A chunk of one token is Eqs. 16–20. */
function linearChunk([query, key, value]: Qkv, [pastS, pastZ]: State): { output: Tensor; state: State } {
  const time = query.shape[2] as number;
  const [q, k] = [eluPlusOne(query), eluPlusOne(key)];
  const weights = mul(matmul(q, k, { transposeB: true }), triangle(query, time, time, 0, 1, 0));
  const onto = (past: Tensor | undefined, fresh: Tensor): Tensor => (past ? add(past, fresh) : fresh);
  const numerator = onto(pastS && matmul(q, pastS), matmul(weights, value));
  const denominator = onto(pastZ && matmul(q, pastZ), sum(weights, { axes: -1, keepDims: true }));
  const state = [onto(pastS, matmul(k, value, { transposeA: true })), onto(pastZ, transpose(sum(k, { axes: 2, keepDims: true })))];
  return { output: div(numerator, add(denominator, epsilon)), state };
}

const mechanisms = {
  softmax: { parallel: softmaxParallel, chunk: softmaxChunk },
  linear: { parallel: linearParallel, chunk: linearChunk },
};
type Mechanism = (typeof mechanisms)[keyof typeof mechanisms];

const slices = ([query, key, value]: Qkv, start: number, end: number): Qkv => [
  slice(query, 2, start, end),
  slice(key, 2, start, end),
  slice(value, 2, start, end),
];

/** The unrolled loop over chunks of `size` tokens, the last one shorter. */
function chunked({ chunk }: Mechanism, qkv: Qkv, size: number): Tensor {
  const time = qkv[0].shape[2] as number;
  let state: State = [];
  const outputs: Tensor[] = [];
  for (let start = 0; start < time; start += size) {
    const step = chunk(slices(qkv, start, Math.min(start + size, time)), state);
    outputs.push(step.output);
    state = step.state;
  }
  return concat(outputs, 2);
}

const sample = (shape: readonly number[], seed = 1): TensorBuffer[] =>
  [0, 1, 2, 3].map((i) => bufferOf("f64", randomDense(seed + i, shape)));

/** Output, first and second derivatives of one face. */
function derivatives(face: (qkv: Qkv) => Tensor, inputs: readonly TensorBuffer[]): number[][] {
  return evaluate((q, k, v, w) => {
    const output = face([q, k, v]);
    const first = gradients(sum(mul(output, w)), [q, k, v]);
    const projection = first.map((g) => sum(mul(g, w))).reduce((a, b) => add(a, b));
    return [output, ...first, ...gradients(projection, [q, k, v])];
  }, inputs).map(({ data }) => data);
}

const names = ["output", "dq", "dk", "dv", "second dq", "second dk", "second dv"];

describe.each(Object.entries(mechanisms))("%s", (name, mechanism) => {
  test("parallel and chunked agree, with first and second derivatives, for any shape and chunk", () => {
    const sizes = fc.record({
      B: fc.integer({ min: 1, max: 2 }),
      H: fc.integer({ min: 1, max: 2 }),
      T: fc.integer({ min: 1, max: 9 }),
      D: fc.integer({ min: 1, max: 4 }),
      C: fc.constantFrom(1, 2, 4, 7, 16),
      seed: fc.nat(1000),
    });
    fc.assert(
      fc.property(sizes, ({ B, H, T, D, C, seed }) => {
        const inputs = sample([B, H, T, D], seed);
        const expected = derivatives(mechanism.parallel, inputs);
        const actual = derivatives((qkv) => chunked(mechanism, qkv, C), inputs);
        for (const [i, data] of expected.entries()) close(`${names[i]} of ${name}`, actual[i], data, 1e-10);
      }),
      { numRuns: 12, seed: 7 },
    );
  });

  test("is causal: a later token changes nothing before it", () => {
    const [q, k, v] = sample([1, 2, 6, 3]);
    const output = (): number[][] =>
      [mechanism.parallel, (qkv: Qkv) => chunked(mechanism, qkv, 4)].map(
        (face) => evaluate((a, b, c) => face([a, b, c]), [q, k, v])[0].data,
      );
    const before = output();
    for (const { data } of [q, k, v]) for (const head of [0, 1]) data[head * 18 + 5 * 3] = 100;
    for (const [i, after] of output().entries()) {
      for (const head of [0, 1]) expect(after.slice(head * 18, head * 18 + 15)).toEqual(before[i].slice(head * 18, head * 18 + 15));
    }
  });

  test("derivatives travel back through a state that leaves one program and enters another", () => {
    const [T, cut] = [7, 4];
    const inputs = sample([2, 1, T, 3]);
    const whole = derivatives(mechanism.parallel, inputs);
    const parts = ([q, k, v, w]: readonly Tensor[], from: number, to: number): [Qkv, Tensor] => [
      slices([q, k, v], from, to),
      slice(w, 2, from, to),
    ];
    // Forward over the first chunk, then forward and backward over the second, then backward over the first.
    const state = evaluate((...x) => mechanism.chunk(parts(x, 0, cut)[0], []).state, inputs).map(({ shape, data }) =>
      bufferFrom("f64", shape, data),
    );
    const second = evaluate(
      (...x) => {
        const [qkv, w] = parts(x, cut, T);
        const carried = x.slice(4);
        return gradients(sum(mul(mechanism.chunk(qkv, carried).output, w)), [...qkv, ...carried]);
      },
      [...inputs, ...state],
    );
    const flowing = second.slice(3).map(({ shape, data }) => bufferFrom("f64", shape, data));
    const first = evaluate(
      (...x) => {
        const [qkv, w] = parts(x, 0, cut);
        const step = mechanism.chunk(qkv, []);
        return vjp([step.output, ...step.state], [w, ...x.slice(4)], [...qkv]);
      },
      [...inputs, ...flowing],
    );
    for (let i = 0; i < 3; i++) {
      const joined = [0, 1].flatMap((b) => [
        ...first[i].data.slice(b * cut * 3, (b + 1) * cut * 3),
        ...second[i].data.slice(b * (T - cut) * 3, (b + 1) * (T - cut) * 3),
      ]);
      close(names[i + 1], joined, whole[i + 1], 1e-10);
    }
  });
});

describe("one token at a time", () => {
  const [B, H, T, D] = [2, 2, 6, 3];
  const [q, k, v] = sample([B, H, T, D]);
  /** Token `t` of every row of a [B, H, T, D] buffer. */
  const token = ({ data }: TensorBuffer, t: number): number[] =>
    Array.from({ length: B * H }, (_, row) => Array.from(data as Float64Array).slice((row * T + t) * D, (row * T + t + 1) * D)).flat();
  const parallel = (name: keyof typeof mechanisms): TensorBuffer => {
    const [{ data }] = evaluate((a, b, c) => mechanisms[name].parallel([a, b, c]), [q, k, v]);
    return bufferFrom("f64", [B, H, T, D], data);
  };

  test("linear attention: the state goes in and comes out, two buffers taking turns", () => {
    const expected = parallel("linear");
    const one = spec("f64", [B, H, 1, D]);
    const program = compile(
      testBackend(),
      ({ query, key, value, S, z }) => {
        const { output, state } = linearChunk([query, key, value], [S, z]);
        return { output, S: state[0], z: state[1] };
      },
      { query: one, key: one, value: one, S: spec("f64", [B, H, D, D]), z: spec("f64", [B, H, D, 1]) },
      { threads: 1 },
    );
    const bound = program.bind();
    let { S, z }: { S: TensorBuffer; z: TensorBuffer } = bound.inputs;
    let next: { S: TensorBuffer; z: TensorBuffer } = bound.outputs;
    for (let t = 0; t < T; t++) {
      for (const [name, all] of Object.entries({ query: q, key: k, value: v }))
        (bound.inputs[name as "query"].data as Float64Array).set(token(all, t));
      for (const [path, input, output] of [
        ["S", S, next.S],
        ["z", z, next.z],
      ] as const) {
        bound.setInput(path, input);
        bound.setOutput(path, output);
      }
      bound.run();
      [{ S, z }, next] = [next, { S, z }];
      close(`token ${t}`, Array.from(bound.outputs.output.data as Float64Array), token(expected, t), 1e-10);
    }
    program.dispose();
  });

  test("softmax: rows written at their slots, the mask made from positions, sequences of different lengths", () => {
    const expected = parallel("softmax");
    const [N, lag] = [8, 2];
    const one = spec("f64", [B, H, 1, D]);
    const cache = spec("f64", [B, H, N, D]);
    const program = compile(
      testBackend(),
      ({ query, key, value, pastKey, pastValue, slots }) =>
        cachedSoftmax({
          query_BHSD: query,
          key_BGSD: key,
          value_BGSD: value,
          pastKey_BGND: pastKey,
          pastValue_BGND: pastValue,
          slots_BS: slots,
        }),
      { query: one, key: one, value: one, pastKey: cache, pastValue: cache, slots: spec("i64", [B, 1]) },
      { threads: 1 },
    );
    const [pastKey, pastValue] = [allocate("f64", [B, H, N, D]), allocate("f64", [B, H, N, D])];
    // What lies beyond a sequence must not matter.
    pastKey.data.fill(1e3);
    pastValue.data.fill(-1e3);
    // Elementwise in the cache, so that the new one may lie in the memory of the old.
    const bound = program.bind({ pastKey, pastValue }, { key: pastKey, value: pastValue });
    for (let step = 0; step < T + lag; step++) {
      // The second sequence starts `lag` steps later; a sequence that waits or is done repeats a token.
      const at = [Math.min(step, T - 1), Math.min(Math.max(step - lag, 0), T - 1)];
      const rows = (all: TensorBuffer): number[] => at.flatMap((t, b) => token(all, t).slice(b * H * D, (b + 1) * H * D));
      for (const [name, all] of Object.entries({ query: q, key: k, value: v }))
        (bound.inputs[name as "query"].data as Float64Array).set(rows(all));
      (bound.inputs.slots.data as BigInt64Array).set(at.map(BigInt));
      bound.run();
      close(`step ${step}`, Array.from(bound.outputs.output.data as Float64Array), rows(expected), 1e-10);
    }
    program.dispose();
  });
});

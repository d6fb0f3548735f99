// longwave.GroupedAttention against sums in float64, wherever the processor can run it.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { BackendError } from "../../base/errors.ts";
import { type GroupQueryOptions, groupQueryAttention } from "../../tensor/attention.ts";
import type { Tensor } from "../../tensor/graph.ts";
import type { Backend } from "../backend.ts";
import { allocate, bufferFrom, type TensorBuffer } from "../buffer.ts";
import { compile, spec } from "../program.ts";
import { Random } from "../rng.ts";
import { kernelForms } from "../testing/kernel-forms.ts";
import { onnxModel } from "../testing/onnx.ts";
import { openNativeBackend } from "./backend.ts";

const random = new Random(11);
const below = (count: number): number => random.integer(count);
const draw = (shape: number[], size = 1) => {
  const buffer = allocate("f32", shape);
  for (let i = 0; i < buffer.data.length; i++) buffer.data[i] = size * (2 * random.uniform() - 1);
  return buffer;
};

interface Case {
  /** Tokens in the cache before, one number a row of the batch. */
  past: number[];
  /** New tokens. */
  tokens: number;
  heads: number;
  kvHeads: number;
  width: number;
  capacity: number;
  window?: number;
  /** Half of the width that is turned. */
  half?: number;
  packed?: boolean;
  tree?: "one bias" | "a bias a head";
  /** Scores this large: exponentials reach from 1 to 0. */
  size?: number;
}

type Values = Record<string, TensorBuffer>;

/** Inputs of the operator: the cache has what it holds, and NaN behind it. */
function inputsOf({ past, tokens: S, heads, kvHeads, width: D, capacity, half, packed, tree, size = 1 }: Case): Values {
  const B = past.length;
  const cache = () => {
    const buffer = draw([B, kvHeads, capacity, D]);
    past.forEach((held, b) => {
      for (let g = 0; g < kvHeads; g++) {
        const start = (b * kvHeads + g) * capacity * D;
        buffer.data.fill(Number.NaN, start + held * D, start + capacity * D);
      }
    });
    return buffer;
  };
  const total = Math.max(...past) + S;
  const values: Values = {
    query: draw([B, S, (heads + (packed ? 2 * kvHeads : 0)) * D], size),
    ...(packed ? {} : { key: draw([B, S, kvHeads * D], size), value: draw([B, S, kvHeads * D]) }),
    pastKey: cache(),
    pastValue: cache(),
    lengths: bufferFrom(
      "i32",
      [B],
      Int32Array.from(past, (held) => held + S - 1),
    ),
    total: bufferFrom("i32", [], Int32Array.of(total)),
  };
  if (half) {
    values.cosines = draw([capacity + 3, half]);
    values.sines = draw([capacity + 3, half]);
  }
  if (tree) {
    values.positions = bufferFrom(
      "i64",
      [B, S],
      BigInt64Array.from({ length: B * S }, () => BigInt(below(capacity))),
    );
    values.bias = draw([tree === "one bias" ? 1 : B, tree === "one bias" ? 1 : heads, S, total], 2);
    for (let i = 0; i < values.bias.data.length; i++) if (below(3) === 0 && i % total !== 0) values.bias.data[i] = -1e9;
  }
  return values;
}

function reference(made: Case, values: Values): { output: Float64Array; key: Float32Array; value: Float32Array } {
  const { past, tokens: S, heads, kvHeads: G, width: D, capacity, window = Number.POSITIVE_INFINITY, half = 0 } = made;
  const J = heads / G;
  const output = new Float64Array(past.length * S * heads * D);
  const key = Float32Array.from(values.pastKey.data as Float32Array);
  const value = Float32Array.from(values.pastValue.data as Float32Array);
  const queryData = values.query.data as Float32Array;
  const stride = values.query.shape[2] as number;
  const isPacked = values.key === undefined;
  const turned = (from: Float32Array, position: number): Float64Array => {
    const result = Float64Array.from(from);
    for (let i = 0; i < half; i++) {
      const [c, s] = [values.cosines, values.sines].map(({ data }) => (data as Float32Array)[position * half + i]);
      result[i] = from[i] * c - from[half + i] * s;
      result[half + i] = from[half + i] * c + from[i] * s;
    }
    return result;
  };
  const part = (token: number, kind: "query" | "key" | "value", head: number): Float32Array => {
    if (kind === "query") return queryData.subarray(token * stride + head * D, token * stride + (head + 1) * D);
    if (!isPacked) return (values[kind].data as Float32Array).subarray((token * G + head) * D, (token * G + head + 1) * D);
    const start = token * stride + (heads + (kind === "value" ? G : 0) + head) * D;
    return queryData.subarray(start, start + D);
  };
  past.forEach((held, b) => {
    const positionOf = (s: number): number => Number((values.positions?.data as BigInt64Array | undefined)?.[b * S + s] ?? held + s);
    for (let s = 0; s < S; s++) {
      for (let g = 0; g < G; g++) {
        const at = ((b * G + g) * capacity + held + s) * D;
        key.set(turned(part(b * S + s, "key", g), positionOf(s)), at);
        value.set(part(b * S + s, "value", g), at);
      }
    }
    for (let s = 0; s < S; s++) {
      for (let h = 0; h < heads; h++) {
        const query = turned(part(b * S + s, "query", h), positionOf(s));
        const start = (b * G + Math.floor(h / J)) * capacity * D;
        const scores: number[] = [];
        for (let place = 0; place <= held + s; place++) {
          let score = 0;
          for (let d = 0; d < D; d++) score += (query[d] * key[start + place * D + d]) / Math.sqrt(D);
          if (values.bias) {
            const [rows, biasHeads, , columns] = values.bias.shape as number[];
            const row = ((rows === 1 ? 0 : b) * biasHeads + (biasHeads === 1 ? 0 : h)) * S + s;
            score += (values.bias.data as Float32Array)[row * columns + place];
          }
          scores.push(place <= held + s - window ? Number.NEGATIVE_INFINITY : score);
        }
        const largest = Math.max(...scores);
        const weights = scores.map((score) => Math.exp(score - largest));
        const sum = weights.reduce((a, b) => a + b);
        weights.forEach((weight, place) => {
          for (let d = 0; d < D && weight > 0; d++)
            output[((b * S + s) * heads + h) * D + d] += (weight / sum) * value[start + place * D + d];
        });
      }
    }
  });
  return { output, key, value };
}

const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array): Buffer => Buffer.from(buffer, byteOffset, byteLength);

type Result = ReturnType<typeof attend>;
function expectSameBytes(actual: Result, expected: Result): void {
  for (const name of ["output", "key", "value"] as const) expect(bytesOf(actual[name]).equals(bytesOf(expected[name])), name).toBe(true);
}

/** Infinite where one is NaN and the other is not. */
function largestError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let largest = 0;
  for (let i = 0; i < expected.length; i++) {
    if (Number.isNaN(actual[i]) && Number.isNaN(expected[i])) continue;
    const error = Math.abs(actual[i] - expected[i]);
    if (!(error <= largest)) largest = Number.isNaN(error) ? Number.POSITIVE_INFINITY : error;
  }
  return largest;
}

type Named = Record<string, Tensor>;

function attend(backend: Backend, { heads, kvHeads, window }: Case, values: Values, inPlace = true) {
  const specs = Object.fromEntries(Object.entries(values).map(([name, { dtype, shape }]) => [name, spec(dtype, shape)]));
  const attention = ({ cosines, sines, positions, bias, ...inputs }: Named) => {
    const options: GroupQueryOptions = { heads, kvHeads, window };
    if (cosines) options.tables = { cosines, sines };
    if (positions) options.tree = { positions, bias };
    return groupQueryAttention(inputs as never, options);
  };
  using program = compile(backend, attention, specs);
  const [pastKey, pastValue] = ["pastKey", "pastValue"].map((name) =>
    bufferFrom("f32", values[name].shape, values[name].data.slice() as Float32Array),
  );
  const width = values.pastKey.shape[3] as number;
  const output = allocate("f32", [...values.query.shape.slice(0, 2), heads * width]);
  const present = inPlace ? [pastKey, pastValue] : [pastKey, pastValue].map(({ shape }) => allocate("f32", shape));
  using bound = program.bind(
    { ...values, pastKey, pastValue } as never,
    { output, presentKey: present[0], presentValue: present[1] } as never,
  );
  bound.run();
  return { output: output.data as Float32Array, key: present[0].data as Float32Array, value: present[1].data as Float32Array };
}

test.skipIf(kernelForms.length === 0)("is there where the processor can run it", () => {
  using backend = openNativeBackend({ threads: 1, ownKernels: true });
  expect(backend.operators.has("GroupedAttention")).toBe(true);
});

describe.each(kernelForms)("GroupedAttention, %s", (form) => {
  let one: Backend;
  let two: Backend;
  beforeAll(() => {
    one = openNativeBackend({ threads: 1, ownKernels: form });
    two = openNativeBackend({ threads: 2, ownKernels: form });
    expect([one.operatorsFailure, one.operators.has("GroupedAttention")]).toEqual([undefined, true]);
  });
  afterAll(() => {
    one.dispose();
    two.dispose();
  });

  const shape = { heads: 6, kvHeads: 2, width: 16, capacity: 300 };
  const cases: Case[] = [
    // Around the ends of chunks.
    ...[0, 1, 62, 63, 64, 65, 127, 128, 250].flatMap((past) =>
      [1, 2, 7].map((tokens) => ({ ...shape, past: [past], tokens, half: 8, packed: true })),
    ),
    // Any number of query rows to a head of the cache.
    ...[1, 2, 3, 4, 5, 7, 8].map((shared) => ({ ...shape, past: [70], tokens: 1 + (shared % 3), heads: 2 * shared })),
    // More tokens than are mixed at a time.
    ...[31, 32, 33, 100, 131].map((tokens) => ({ ...shape, past: [below(150)], tokens, half: 8 })),
    { ...shape, past: [0], tokens: 300, half: 8, packed: true },
    ...[8, 24, 40, 64, 80, 128, 256].map((width) => ({ ...shape, past: [77], tokens: 3, width, packed: true, half: width >= 32 ? 16 : 0 })),
    // Batches.
    { ...shape, past: [5, 0, 130, 64], tokens: 1, half: 8, packed: true },
    { ...shape, past: [0, 0, 0], tokens: 70, half: 8 },
    // Windows.
    ...[1, 2, 40, 64, 65, 200].flatMap((window) => [1, 9, 80].map((tokens) => ({ ...shape, past: [130], tokens, window, half: 8 }))),
    { ...shape, past: [5, 0, 130, 64], tokens: 1, window: 70 },
    // Trees.
    ...[1, 6, 40].flatMap((tokens) =>
      (["one bias", "a bias a head"] as const).map((tree) => ({ ...shape, past: [90], tokens, half: 8, packed: true, tree })),
    ),
    { ...shape, past: [90, 12], tokens: 1, tree: "a bias a head" },
    // Scores far apart.
    ...[1, 8].map((tokens) => ({ ...shape, past: [150], tokens, size: 200, half: 8 })),
  ];

  test.each(cases)("%j", (made) => {
    const values = inputsOf(made);
    const expected = reference(made, values);
    const { output, key, value } = attend(one, made, values);
    expect(bytesOf(value).equals(bytesOf(expected.value))).toBe(true);
    expect(largestError(key, expected.key)).toBeLessThanOrEqual(3e-7 * (made.size ?? 1));
    expect(largestError(output, expected.output)).toBeLessThanOrEqual(made.size ? 1e-3 : 3e-6);
    // The same bytes on two threads, and into other memory.
    expectSameBytes(attend(two, made, values), { output, key, value });
    expectSameBytes(attend(one, made, values, false), { output, key, value });
  });

  test.each([
    [0, 70, undefined],
    [60, 9, undefined],
    [100, 40, 50],
  ])("rows are the same bytes alone and together: %i in the cache, %i new, window %s", (held, tokens, window) => {
    const made: Case = { ...shape, past: [held], tokens, window, half: 8, packed: true };
    const values = inputsOf(made);
    const together = attend(two, made, values);
    const rowOf = (data: ArrayLike<number>, width: number, s: number): Float32Array =>
      Float32Array.from(data).slice(s * width, (s + 1) * width);
    let [pastKey, pastValue] = [values.pastKey, values.pastValue];
    for (let s = 0; s < tokens; s++) {
      const alone = attend(
        two,
        { ...made, tokens: 1 },
        {
          ...values,
          query: bufferFrom("f32", [1, 1, 160], rowOf(values.query.data as Float32Array, 160, s)),
          pastKey,
          pastValue,
          lengths: bufferFrom("i32", [1], Int32Array.of(held + s)),
          total: bufferFrom("i32", [], Int32Array.of(held + s + 1)),
        },
      );
      expect(alone.output).toEqual(rowOf(together.output, 96, s));
      [pastKey, pastValue] = [alone.key, alone.value].map((data) => bufferFrom("f32", values.pastKey.shape, data));
    }
    expectSameBytes({ ...together, key: pastKey.data as Float32Array, value: pastValue.data as Float32Array }, together);
  });

  test("a key that is not finite spoils the rows that see it", () => {
    const made: Case = { ...shape, past: [3], tokens: 4 };
    const values = inputsOf(made);
    const clean = attend(two, made, values).output;
    (values.key.data as Float32Array)[2 * 32] = Number.NaN;
    const spoilt = attend(two, made, values).output;
    expect(spoilt.slice(0, 2 * 96)).toEqual(clean.slice(0, 2 * 96));
    for (let row = 2; row < 4; row++) {
      expect([...spoilt.slice(row * 96, row * 96 + 48)]).toEqual(Array(48).fill(Number.NaN));
      expect(spoilt.slice(row * 96 + 48, row * 96 + 96)).toEqual(clean.slice(row * 96 + 48, row * 96 + 96));
    }
  });

  test("a row that sees nothing is zeros, and one that sees one key is its value", () => {
    const made: Case = { ...shape, past: [70], tokens: 2, tree: "one bias" };
    const values = inputsOf(made);
    for (const hidden of [Number.NEGATIVE_INFINITY, -3.4028234663852886e38]) {
      const bias = values.bias.data as Float32Array;
      bias.fill(hidden);
      bias[72 + 3] = 1;
      const { output } = attend(two, made, values);
      expect(output.slice(0, 96)).toEqual(new Float32Array(96));
      const seen = (values.pastValue.data as Float32Array).slice(3 * 16, 4 * 16);
      for (let head = 0; head < 3; head++) expect(output.slice(96 + head * 16, 96 + (head + 1) * 16)).toEqual(seen);
    }
  });

  test("rows of a batch are the same bytes as alone; lengths of first prompts may be without their padding", () => {
    const made: Case = { ...shape, past: [5, 0, 130, 64], tokens: 1, half: 8, packed: true };
    const values = inputsOf(made);
    const together = attend(two, made, values).output;
    const row = (name: string, b: number): TensorBuffer => {
      const { shape, data } = values[name];
      const size = data.length / 4;
      return bufferFrom("f32", [1, ...shape.slice(1)] as number[], (data as Float32Array).slice(b * size, (b + 1) * size));
    };
    made.past.forEach((held, b) => {
      const alone: Values = {
        ...values,
        lengths: bufferFrom("i32", [1], Int32Array.of(held)),
        total: bufferFrom("i32", [], Int32Array.of(held + 1)),
      };
      for (const name of ["query", "pastKey", "pastValue"]) alone[name] = row(name, b);
      expect(attend(one, { ...made, past: [held] }, alone).output).toEqual(together.slice(b * 96, (b + 1) * 96));
    });
    const first: Case = { ...shape, past: [0, 0], tokens: 70, half: 8 };
    const padded = inputsOf(first);
    const whole = attend(two, first, padded);
    expectSameBytes(attend(two, first, { ...padded, lengths: bufferFrom("i32", [2], Int32Array.of(69, 12)) }), whole);
  });

  test("runs of one program at the same time do not disturb each other", async () => {
    const made: Case = { ...shape, past: [200], tokens: 40, half: 8, packed: true };
    const values = inputsOf(made);
    const expected = attend(two, made, values).output;
    const specs = Object.fromEntries(Object.entries(values).map(([name, { dtype, shape }]) => [name, spec(dtype, shape)]));
    const attention = ({ cosines, sines, ...inputs }: Named) =>
      groupQueryAttention(inputs as never, { ...shape, tables: { cosines, sines } });
    using program = compile(two, attention, specs);
    const runs = Array.from({ length: 6 }, () => {
      const [presentKey, presentValue] = [values.pastKey, values.pastValue].map(({ shape }) => allocate("f32", shape));
      return { output: allocate("f32", [1, 40, 96]), presentKey, presentValue };
    });
    const bounds = runs.map((outputs) => program.bind(values as never, outputs as never));
    await Promise.all(bounds.map((bound) => bound.runAsync()));
    for (const { output } of runs) expect(output.data).toEqual(expected);
  });

  test("what does not fit is refused", () => {
    const shapes: Record<string, number[]> = {
      query: [1, 2, 32],
      key: [1, 2, 16],
      value: [1, 2, 16],
      pastKey: [1, 2, 20, 8],
      pastValue: [1, 2, 20, 8],
    };
    const right = { num_heads: 4, kv_num_heads: 2, local_window_size: -1, tasks: 1 };
    const types: Record<string, "i32" | "i64"> = { lengths: "i32", total: "i32", positions: "i64" };
    const all = ["query", "key", "value", "pastKey", "pastValue", "lengths", "total", "cosines", "sines", "positions", "bias"];
    const model = (given: Record<string, number[]>, attributes: Record<string, number> = {}): Uint8Array =>
      onnxModel({
        inputs: Object.fromEntries(Object.entries(given).map(([name, shape]) => [name, { shape, dtype: types[name] ?? "f32" }])),
        outputs: {
          output: { shape: ["B", "S", "C"] },
          presentKey: { shape: ["B", "G", "T", "D"] },
          presentValue: { shape: ["B", "G", "T", "D"] },
        },
        nodes: [
          {
            op: "GroupedAttention",
            domain: "longwave",
            inputs: all.map((name) => (name in given ? name : "")),
            outputs: ["output", "presentKey", "presentValue"],
            attributes: { ...right, scale: { float: 0.5 }, ...attributes },
          },
        ],
      });
    const withLengths = { ...shapes, lengths: [1], total: [] };
    const wrongAttributes: Record<string, number>[] = [
      { num_heads: 3 },
      { kv_num_heads: 0 },
      { num_heads: 0 },
      { tasks: 0 },
      { local_window_size: 0 },
      { local_window_size: -2 },
      { num_heads: 2 ** 20 },
      { tasks: 2 ** 20 },
    ];
    for (const wrong of wrongAttributes)
      expect(() => one.createSession(model(withLengths, wrong), { ownOperators: true }), JSON.stringify(wrong)).toThrow(BackendError);

    const run = (given: Record<string, number[]>, { held = 5, total = 7, position = 0 } = {}): void => {
      using session = one.createSession(model(given), { ownOperators: true });
      const buffers = new Map<string, TensorBuffer>(
        Object.entries(given).map(([name, shape]) => [name, allocate(types[name] ?? "f32", shape)]),
      );
      buffers.get("lengths")?.data.fill((held + 1) as never);
      buffers.get("total")?.data.fill(total as never);
      buffers.get("positions")?.data.fill(BigInt(position) as never);
      const cache = given.pastKey.length === 4 ? given.pastKey : [1, 2, 20, 8];
      const outputs = new Map([
        ["output", allocate("f32", [1, 2, 32])],
        ["presentKey", allocate("f32", cache)],
        ["presentValue", allocate("f32", cache)],
      ]);
      using binding = session.bind(buffers, outputs);
      binding.run();
    };
    const tables = { cosines: [20, 8], sines: [20, 8] };
    const wide = {
      ...withLengths,
      query: [1, 2, 64],
      key: [1, 2, 32],
      value: [1, 2, 32],
      pastKey: [1, 2, 20, 16],
      pastValue: [1, 2, 20, 16],
    };
    run(withLengths);
    const wrong: [RegExp, Record<string, number[]>, Parameters<typeof run>[1]?][] = [
      [/rank 3/, { ...withLengths, query: [1, 64] }],
      [/multiple of 8/, { ...withLengths, pastKey: [1, 2, 20, 4], pastValue: [1, 2, 20, 4] }],
      [/one shape/, { ...withLengths, pastValue: [1, 2, 21, 8] }],
      [/kv_heads, capacity/, { ...withLengths, pastKey: [1, 1, 20, 8], pastValue: [1, 1, 20, 8] }],
      [/expected queries/, { ...withLengths, query: [1, 2, 40] }],
      [/keys and values/, { ...withLengths, key: [1, 1, 16] }],
      [/lengths \[B\]/, { ...withLengths, lengths: [2] }],
      [/one total/, { ...withLengths, total: [2] }],
      [/outside the cache/, withLengths, { held: 19, total: 21 }],
      [/outside the cache/, withLengths, { held: -1, total: 1 }],
      [/positions \[B, S\]/, { ...withLengths, positions: [1, 3] }],
      [/multiple of 8, up to 256/, { ...withLengths, pastKey: [1, 2, 20, 264], pastValue: [1, 2, 20, 264] }],
      [/too many dimensions/, { ...withLengths, total: Array(9).fill(1) }],
      [/both tables/, { ...wide, sines: [20, 8] }],
      [/two tables/, { ...withLengths, ...tables }],
      [/two tables/, { ...wide, cosines: [20, 8], sines: [19, 8] }],
      [/outside the tables/, { ...wide, cosines: [6, 8], sines: [6, 8] }],
      [/outside the tables/, { ...wide, ...tables, positions: [1, 2] }, { position: 20 }],
      [/outside the tables/, { ...wide, ...tables, positions: [1, 2] }, { position: -1 }],
      [/a bias \[/, { ...withLengths, bias: [1, 3, 2, 7] }],
      [/fewer columns/, { ...withLengths, bias: [1, 1, 2, 6] }],
    ];
    for (const [message, given, numbers] of wrong) expect(() => run(given, numbers), String(message)).toThrow(message);
  });
});

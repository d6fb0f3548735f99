import { describe, expect, test } from "vitest";
import { allocate, bufferFrom, type TensorBuffer } from "../runtime/buffer.ts";
import { compile, spec } from "../runtime/program.ts";
import { type GroupQueryOptions, groupQueryAttention, quantisedLinear, rotary, scaledDotProductAttention, writeRows } from "./attention.ts";
import { reshape, sum } from "./core.ts";
import { add, mul } from "./elementwise.ts";
import { gradients } from "./gradient.ts";
import type { Tensor } from "./graph.ts";
import { concat, slice, transpose } from "./shape.ts";
import { type CachedSoftmaxOptions, cachedSoftmax } from "./testing/cached-softmax.ts";
import { bufferOf, checkDerivatives, close, evaluate, testBackend, toDense } from "./testing/derivatives.ts";
import { at, broadcastShape, type Dense, elementwise, randomDense, tabulate, total } from "./testing/reference.ts";

describe("rotary", () => {
  const turned = (x: Dense, cosines: Dense, sines: Dense): Dense =>
    tabulate(x.shape, (...index) => {
      const half = x.shape[3] / 2;
      const i = index[3] % half;
      const pair = [i, i + half].map((feature) => at(x, [...index.slice(0, 3), feature]));
      const [c, s] = [cosines, sines].map((table) => at(table, [...index.slice(0, 3), i]));
      return index[3] < half ? pair[0] * c - pair[1] * s : pair[1] * c + pair[0] * s;
    });
  for (const [shape, tables] of [
    [
      [1, 3, 2, 4],
      [3, 1, 2],
    ],
    [
      [2, 2, 1, 2],
      [2, 2, 1, 1],
    ],
    [[2, 1, 2, 4], [2]],
    [
      [1, 2, 0, 4],
      [2, 1, 2],
    ],
  ]) {
    checkDerivatives(`[${shape}] by tables [${tables}]`, (x, c, s) => rotary(x, c, s), [shape, tables, tables], { reference: turned });
  }

  test("keeps lengths, and products depend on the difference of positions alone", () => {
    const [T, D] = [6, 8];
    const angles = tabulate([T, 1, D / 2], (t, _, i) => t * 10000 ** ((-2 * i) / D));
    const tables = [Math.cos, Math.sin].map((fn) => bufferFrom("f64", [T, 1, D / 2], Float64Array.from(angles.data, fn)));
    const row = randomDense(3, [2, D]);
    const x = bufferFrom(
      "f64",
      [2, T, 1, D],
      [0, 1].flatMap((b) => Array.from({ length: T }, () => Array.from(row.data).slice(b * D, (b + 1) * D)).flat()),
    );
    const [y] = evaluate((a, c, s) => rotary(a, c, s), [x, ...tables]);
    const dot = (p: number, q: number): number =>
      Array.from({ length: D }, (_, i) => y.data[p * D + i] * y.data[(T + q) * D + i]).reduce((a, b) => a + b);
    for (let t = 0; t + 2 < T; t++) expect(dot(t + 2, t)).toBeCloseTo(dot(2, 0), 12);
    const length = (t: number): number => Math.hypot(...y.data.slice(t * D, (t + 1) * D));
    for (let t = 1; t < T; t++) expect(length(t)).toBeCloseTo(length(0), 12);
  });

  test("tables that do not fit are refused", () => {
    const inputs = [
      [1, 2, 1, 4],
      [2, 1, 1],
      [3, 1, 2],
    ].map((shape) => bufferOf("f32", randomDense(1, shape)));
    expect(() => evaluate((x, narrow) => rotary(x, narrow, narrow), inputs)).toThrow(
      "rotary: expected x [B, T, H, D] and cosines and sines that broadcast to [B, T, H, D/2], got f32[1, 2, 1, 4], f32[2, 1, 1]",
    );
    expect(() => evaluate((x, _, long) => rotary(x, long, long), inputs)).toThrow("rotary: expected shapes that broadcast");
  });
});

describe("scaledDotProductAttention", () => {
  const attended = (query: Dense, key: Dense, value: Dense, bias?: Dense, scale = 1 / Math.sqrt(query.shape.at(-1) as number)): Dense => {
    const batch = broadcastShape(query.shape.slice(0, -2), key.shape.slice(0, -2));
    const [rows, inner, columns] = [query.shape.at(-2) as number, query.shape.at(-1) as number, key.shape.at(-2) as number];
    return tabulate([...batch, rows, value.shape.at(-1) as number], (...index) => {
      const [place, row, feature] = [index.slice(0, -2), index.at(-2) as number, index.at(-1) as number];
      const scores = Array.from({ length: columns }, (_, s) => {
        let sum = 0;
        for (let i = 0; i < inner; i++) sum += at(query, [...place, row, i]) * at(key, [...place, s, i]);
        return sum * scale + (bias ? at(bias, [...place, row, s]) : 0);
      });
      const weights = scores.map((score) => Math.exp(score - Math.max(...scores)));
      return total(weights.map((weight, s) => weight * at(value, [...place, s, feature]))) / total(weights);
    });
  };
  for (const [query, key, value, bias] of [
    [
      [3, 2],
      [3, 2],
      [3, 2],
    ],
    [
      [2, 3, 2],
      [2, 4, 2],
      [2, 4, 1],
    ],
    [
      [2, 2, 1, 3, 2],
      [2, 1, 1, 3, 2],
      [2, 1, 1, 3, 2],
    ],
    [
      [2, 3, 2],
      [2, 3, 2],
      [2, 3, 2],
      [3, 3],
    ],
    [
      [2, 1, 3, 2],
      [2, 1, 3, 2],
      [2, 1, 3, 2],
      [2, 1, 1, 3],
    ],
    [
      [1, 2, 2],
      [2, 2, 2],
      [1, 2, 2],
      [2, 1],
    ],
    [
      [1, 1],
      [1, 1],
      [1, 1],
    ],
    [
      [2, 0, 3],
      [2, 2, 3],
      [2, 2, 3],
    ],
    [
      [0, 2, 3],
      [0, 2, 3],
      [0, 2, 3],
    ],
  ] as number[][][]) {
    const shapes = bias ? [query, key, value, bias] : [query, key, value];
    checkDerivatives(
      shapes.map((shape) => `[${shape}]`).join(" "),
      (q, k, v, b) => scaledDotProductAttention(q, k, v, { bias: b }),
      shapes,
      {
        reference: (q, k, v, b) => attended(q, k, v, b),
      },
    );
  }
  checkDerivatives(
    "scaled, and with a factor behind",
    (q, k, v) => mul(scaledDotProductAttention(q, k, v, { scale: 0.3 }), 0.7),
    [
      [2, 2, 2],
      [2, 2, 2],
      [2, 2, 2],
    ],
    {
      reference: (q, k, v) => elementwise((a) => 0.7 * a, attended(q, k, v, undefined, 0.3)),
    },
  );
  checkDerivatives("of a tensor with itself", (x) => scaledDotProductAttention(x, x, x), [[2, 3, 2]], {
    reference: (x) => attended(x, x, x),
  });

  test("masked and large scores in float32 give finite derivatives", () => {
    const inputs = [1, 2, 3].map((seed) => bufferOf("f32", randomDense(seed, [1, 4, 2], -1e3, 1e3)));
    const bias = bufferOf(
      "f32",
      tabulate([4, 4], (i, j) => (j > i || i === 3 ? -1e30 : 0)),
    );
    const outputs = evaluate(
      (q, k, v, b) => {
        const y = scaledDotProductAttention(q, k, v, { bias: b });
        const first = gradients(sum(mul(y, y)), [q, k, v]);
        return [
          y,
          ...first,
          ...gradients(
            first.map((g) => sum(mul(g, 1e-3))).reduce((a, c) => add(a, c)),
            [q, k, v],
          ),
        ];
      },
      [...inputs, bias],
    );
    for (const { data } of outputs) expect(data.every(Number.isFinite)).toBe(true);
  });
  test("shapes that do not fit are refused", () => {
    const inputs = [
      [3, 2],
      [4, 3],
      [4, 2],
      [2, 4],
    ].map((shape) => bufferOf("f32", randomDense(1, shape)));
    expect(() => evaluate((q, k, v) => scaledDotProductAttention(q, k, v), inputs)).toThrow(
      "scaledDotProductAttention: expected query [.., T, D], key [.., S, D] and value [.., S, E], got f32[3, 2], f32[4, 3] and f32[4, 2]",
    );
    expect(() => evaluate((q, _, v, b) => scaledDotProductAttention(q, v, v, { bias: b }), inputs)).toThrow(
      "scaledDotProductAttention: expected",
    );
  });
});

test("writeRows replaces the rows at the given positions", () => {
  const cache = tabulate([2, 2, 4, 1], (b, g, n) => 100 * b + 10 * g + n);
  const rows = tabulate([2, 2, 2, 1], (b, g, s) => -(100 * b + 10 * g + s) - 1);
  const [y] = evaluate(writeRows, [bufferOf("f32", cache), bufferFrom("i32", [2, 2], [0, 3, 2, 1]), bufferOf("f32", rows)]);
  const places = [
    [0, 3],
    [2, 1],
  ];
  const expected = tabulate([2, 2, 4, 1], (b, g, n) =>
    places[b].includes(n) ? at(rows, [b, g, places[b].indexOf(n), 0]) : at(cache, [b, g, n, 0]),
  );
  expect(y.data).toEqual(Array.from(expected.data));
});

describe("groupQueryAttention in place is the composed softmax over a cache", () => {
  const [G, N] = [2, 12];

  interface Case {
    heads?: number;
    /** Head width. Default 8. */
    D?: number;
    pasts: number[];
    S: number;
    options?: Partial<GroupQueryOptions> & CachedSoftmaxOptions;
    /** Parent of each new node of a tree, −1 for the root. */
    parents?: number[];
    packed?: boolean;
    rotary?: boolean;
  }

  function compare({ heads = 4, D = 8, pasts, S, options = {}, parents, packed = false, rotary: own = false }: Case): void {
    const B = pasts.length;
    const total = Math.max(...pasts) + S;
    const x = [randomDense(1, [B, S, heads * D]), randomDense(2, [B, S, G * D]), randomDense(3, [B, S, G * D])].map((dense) =>
      bufferOf("f32", dense),
    );
    const past = (seed: number): TensorBuffer =>
      // Beyond the past lies what must not be read.
      bufferOf(
        "f32",
        tabulate([B, G, N, D], (b, g, n, d) => (n < pasts[b] ? at(randomDense(seed, [B, G, N, D]), [b, g, n, d]) : 1e4)),
      );
    const [pastKey, pastValue] = [past(4), past(5)];
    const [key, value] = [pastKey, pastValue].map(({ shape, data }) => bufferFrom("f32", shape, data));
    const slots = bufferFrom(
      "i64",
      [B, S],
      pasts.flatMap((length) => Array.from({ length: S }, (_, s) => length + s)),
    );
    const depth = (node: number): number => (parents && parents[node] >= 0 ? depth(parents[node]) + 1 : 0);
    const positions = parents
      ? bufferFrom(
          "i64",
          [B, S],
          pasts.flatMap((length) => parents.map((_, s) => length + depth(s))),
        )
      : slots;
    const isAncestor = (node: number, of: number): boolean =>
      of === node || (of >= 0 && (parents as number[])[of] >= 0 && isAncestor(node, (parents as number[])[of]));
    const biasOf = (width: number): TensorBuffer =>
      bufferOf(
        "f32",
        tabulate([1, 1, S, width], (_, __, s, n) =>
          parents && n >= pasts[0] && n < pasts[0] + S && !isAncestor(n - pasts[0], s) ? -1e30 : 0,
        ),
      );
    const angles = tabulate([N, D / 2], (t, i) => t * 10000 ** ((-2 * i) / D));
    const tables = [Math.cos, Math.sin].map((fn) => bufferFrom("f32", [N, D / 2], Float64Array.from(angles.data, fn)));
    const inputs = {
      query: x[0],
      key: x[1],
      value: x[2],
      pastKey: key,
      pastValue: value,
      lengths: bufferFrom(
        "i32",
        [B],
        pasts.map((length) => length + S - 1),
      ),
      total: bufferFrom("i32", [], [total]),
      positions,
      bias: biasOf(total),
      cosines: tables[0],
      sines: tables[1],
    };
    const specs = Object.fromEntries(Object.entries(inputs).map(([name, { dtype, shape }]) => [name, spec(dtype, shape)]));
    const program = compile(
      testBackend(),
      (t: Record<keyof typeof inputs, Tensor>) => {
        const rows = packed ? { query: concat([t.query, t.key, t.value], -1) } : { query: t.query, key: t.key, value: t.value };
        const { pastKey, pastValue, lengths, total } = t;
        return groupQueryAttention(
          { ...rows, pastKey, pastValue, lengths, total },
          {
            heads,
            kvHeads: G,
            softCap: options.softCap,
            window: options.window,
            ...(own ? { tables: { cosines: t.cosines, sines: t.sines } } : {}),
            ...(parents ? { tree: { positions: t.positions, bias: t.bias } } : {}),
          },
        );
      },
      specs as never,
      { threads: 1 },
    );
    const bound = program.bind(inputs as never, { presentKey: key, presentValue: value } as never);
    bound.run();
    const actual = (bound.outputs as unknown as { output: TensorBuffer }).output;

    const angle = tables.map((table) =>
      bufferFrom(
        "f32",
        [B, S, 1, D / 2],
        Array.from(positions.data as BigInt64Array, (p) =>
          Array.from((table.data as Float32Array).slice((Number(p) * D) / 2, ((Number(p) + 1) * D) / 2)),
        ).flat(),
      ),
    );
    const [output, presentKey, presentValue] = evaluate(
      (q, k, v, pk, pv, n, bias, c, s) => {
        const split = (tensor: Tensor, count: number, turn: boolean): Tensor => {
          const rows = reshape(tensor, [B, S, count, D]);
          return transpose(own && turn ? rotary(rows, c, s) : rows, [0, 2, 1, 3]);
        };
        const result = cachedSoftmax(
          {
            query_BHSD: split(q, heads, true),
            key_BGSD: split(k, G, true),
            value_BGSD: split(v, G, false),
            pastKey_BGND: pk,
            pastValue_BGND: pv,
            slots_BS: n,
          },
          { softCap: options.softCap, window: options.window, ...(parents ? { bias } : {}) },
        );
        return [reshape(transpose(result.output, [0, 2, 1, 3]), [B, S, heads * D]), result.key, result.value];
      },
      [...x, pastKey, pastValue, slots, biasOf(N), ...angle],
    );
    close("output", toDense(actual).data, output.data, 1e-5);
    // Beyond the new rows a backend that copies its outputs leaves zeros.
    const filled = (cache: Dense): ArrayLike<number> =>
      tabulate([B, G, N, D], (b, g, n, d) => (n < pasts[b] + S ? at(cache, [b, g, n, d]) : 0)).data;
    close("keys", filled(toDense(key)), filled(presentKey), 1e-6);
    close("values", filled(toDense(value)), filled(presentValue), 1e-6);
    program.dispose();
  }

  test("a batch of different lengths, one new token each", () => compare({ pasts: [1, 6, 3], S: 1 }));
  test("an empty past", () => compare({ pasts: [0], S: 1 }));
  test("a batch that starts with several tokens", () => compare({ pasts: [0, 0], S: 4 }));
  test("a chain of several new tokens after a past", () => compare({ pasts: [5], S: 4 }));
  test("a single group, many groups", () => {
    compare({ pasts: [3], S: 2, heads: 2 });
    compare({ pasts: [3], S: 2, heads: 6 });
  });
  test("wider heads", () => compare({ pasts: [2, 4], S: 1, D: 24 }));
  test("the three projections in one", () => compare({ pasts: [5], S: 3, packed: true }));
  test("rotation inside the kernel", () => {
    compare({ pasts: [5], S: 3, D: 16, rotary: true });
    compare({ pasts: [2, 7], S: 1, D: 16, rotary: true });
  });
  test("a window", () => {
    compare({ pasts: [7], S: 1, options: { window: 3 } });
    compare({ pasts: [4], S: 4, options: { window: 3 } });
  });
  test("a soft cap", () => compare({ pasts: [4, 6], S: 1, options: { softCap: 0.5 } }));
  test("a tree of new tokens", () => compare({ pasts: [5], S: 5, parents: [-1, 0, 0, 1, 2] }));
  test("a tree with rotation by depth inside the kernel", () =>
    compare({ pasts: [5], S: 5, D: 16, parents: [-1, 0, 0, 1, 2], rotary: true }));
  test("what does not fit is refused", () => {
    const narrow = [
      [1, 1, 16],
      [1, 1, 8],
      [1, 2, 4, 8],
      [1, 1, 12],
    ].map((shape) => bufferOf("f32", randomDense(1, shape)));
    const integers = [bufferFrom("i32", [1], [0]), bufferFrom("i32", [], [1])];
    const call = (heads: number, kvHeads: number) => () =>
      evaluate(
        (query, key, past, _, lengths, total) =>
          groupQueryAttention({ query, key, value: key, pastKey: past, pastValue: past, lengths, total }, { heads, kvHeads }).output,
        [...narrow, ...integers],
      );
    expect(call(2, 2)).toThrow(
      "groupQueryAttention: expected query [B, S, H·D], key and value [B, S, KV·D] or the three in one, caches [B, KV, capacity, D] and H a multiple of KV, got f32[1, 1, 16], f32[1, 1, 8]",
    );
    expect(() =>
      evaluate(
        (query, __, past, ___, lengths, total) =>
          groupQueryAttention({ query, key: query, pastKey: past, pastValue: past, lengths, total }, { heads: 2, kvHeads: 2 }).output,
        [...narrow, ...integers],
      ),
    ).toThrow("expected both key and value or neither");
  });
});

describe("quantisedLinear reads blocks as documented", () => {
  for (const bits of [4, 8] as const) {
    for (const [inner, blockSize] of [
      [32, 16],
      [40, 16],
      [96, 32],
      [130, 64],
    ]) {
      for (const [zeros, offsets] of [
        [false, false],
        [true, false],
        ...(inner % blockSize
          ? []
          : [
              [false, true],
              [true, true],
            ]),
      ]) {
        const extras = `${zeros ? "with" : "without"} zero points, ${offsets ? "with" : "without"} offsets`;
        test(`${bits} bits, ${inner} inputs in blocks of ${blockSize}, ${extras}`, () => {
          const [out, blocks] = [5, Math.ceil(inner / blockSize)];
          // With 8 bits multiples of 8: our own kernel rounds sums of two products to such.
          const unit = bits === 8 ? 8 : 1;
          const level = tabulate([out, blocks, blockSize], (o, b, i) => unit * ((o * 31 + b * 17 + i * 7 + o * i) % (2 ** bits / unit)));
          const zero = tabulate([out, blocks], (o, b) => (zeros ? (o * 5 + b * 3) % 2 ** bits : 2 ** (bits - 1)));
          const scale = tabulate([out, blocks], (o, b) => (o % 2 ? -1 : 1) / (8 + o + b));
          const offset = tabulate([out, blocks], (o, b) => (offsets ? (o + 1) / (b - 2.5) : 0));
          // The documented layout.
          const perByte = 8 / bits;
          const pack = (values: ArrayLike<number>, rowLength: number): number[] => {
            const bytes: number[] = [];
            for (let row = 0; row < values.length; row += rowLength) {
              for (let i = 0; i < rowLength; i += perByte) {
                bytes.push(bits === 8 ? values[row + i] : values[row + i] | ((i + 1 < rowLength ? values[row + i + 1] : 0) << 4));
              }
            }
            return bytes;
          };
          const weight = {
            packed: bufferFrom("u8", [out, blocks, (blockSize * bits) / 8], pack(level.data, blockSize)),
            scales: bufferOf("f32", scale),
            zeroPoints: bufferFrom("u8", [out, Math.ceil((blocks * bits) / 8)], pack(zero.data, blocks)),
            offsets: bufferOf("f32", offset),
          };
          // Integers whose largest magnitude in a block is 127: the rounding of activations to int8 is exact, in blocks of 32 as well.
          const x = tabulate([3, inner], (row, i) => (i % Math.min(blockSize, 32) === 0 ? 127 : ((row * 37 + i * 29) % 255) - 127));
          const expected = tabulate([3, out], (row, o) => {
            let sum = 0;
            for (let i = 0; i < inner; i++) {
              const block = Math.floor(i / blockSize);
              const value = at(scale, [o, block]) * (at(level, [o, block, i % blockSize]) - at(zero, [o, block])) + at(offset, [o, block]);
              sum += at(x, [row, i]) * value;
            }
            return sum;
          });
          for (const rows of [0, 1, 3]) {
            const part = bufferFrom("f32", [rows, inner], Array.from(x.data).slice(0, rows * inner));
            const shared = new Map([
              ["packed", weight.packed],
              ["scales", weight.scales],
              ...(zeros ? [["zeroPoints", weight.zeroPoints] as const] : []),
              ...(offsets ? [["offsets", weight.offsets] as const] : []),
            ] as [string, TensorBuffer][]);
            const specs = Object.fromEntries(
              [["x", part] as const, ...shared].map(([name, { dtype, shape }]) => [
                name,
                spec(dtype, name === "x" ? ["rows", inner] : shape),
              ]),
            );
            // As shared weights, packed anew by the session or not, and as plain inputs.
            for (const options of [{ weights: shared }, { weights: shared, prepack: false }, {}]) {
              const program = compile(
                testBackend(),
                ({ x, ...blocks }: Record<string, Tensor>) => quantisedLinear(x, blocks as never, bits, blockSize),
                specs as never,
                { threads: 1, ...options },
              );
              const y = program.run({ x: part, ...Object.fromEntries(shared) } as never) as unknown as TensorBuffer;
              close(`${rows} rows`, toDense(y).data, Array.from(expected.data).slice(0, rows * out), 1e-5);
              program.dispose();
            }
          }
        });
      }
    }
  }
  test("a leading shape is kept, a wrong one refused", () => {
    const inputs = [bufferFrom("f32", [2, 1, 32], new Float32Array(64)), allocate("u8", [3, 2, 8]), allocate("f32", [3, 2])];
    const [y] = evaluate((x, packed, scales) => quantisedLinear(x, { packed, scales }, 4, 16), inputs);
    expect(y.shape).toEqual([2, 1, 3]);
    expect(() => evaluate((x, packed, scales) => quantisedLinear(slice(x, 2, 0, 16), { packed, scales }, 4, 16), inputs)).toThrow(
      "quantisedLinear: expected packed blocks [out, 16/16, 8], got u8[3, 2, 8] for f32[2, 1, 16]",
    );
    expect(() => evaluate((x, packed, scales) => quantisedLinear(x, { packed, scales }, 8, 16), inputs)).toThrow(
      "quantisedLinear: expected packed blocks [out, 32/16, 16], got u8[3, 2, 8]",
    );
    expect(() => evaluate((x, packed, scales) => quantisedLinear(x, { packed, scales: reshape(scales, [2, 3]) }, 4, 16), inputs)).toThrow(
      "quantisedLinear: expected scales [3, 2]",
    );
  });
});

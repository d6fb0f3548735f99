// Layers of experts: every emission against loops over tokens, routing rules against their definitions, the load-balancing loss against
// loads that are known.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend } from "../../runtime/backend.ts";
import { bufferFrom, type TensorBuffer } from "../../runtime/buffer.ts";
import { openBackend } from "../../runtime/open.ts";
import { compile, spec } from "../../runtime/program.ts";
import { silu } from "../../tensor/activation.ts";
import { uniforms } from "../../tensor/testing/reference.ts";
import { packStackQ8, unpack } from "../quantise.ts";
import { type ExpertsEmission, expertLayer } from "./experts.ts";
import { balanceLoss, type RouterOptions, route } from "./router.ts";

let backend: Backend;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
});
afterAll(() => backend.dispose());

const [E, M, C] = [6, 8, 16];
const random = (shape: number[], seed: number, scale = 1): TensorBuffer<"f32"> => {
  const next = uniforms(seed);
  const size = shape.reduce((a, b) => a * b, 1);
  return bufferFrom(
    "f32",
    shape,
    Float32Array.from({ length: size }, () => scale * (2 * next() - 1)),
  );
};
const weights = { up: random([E, 2 * M, C], 3), down: random([E, C, M], 4) };

/** Weights of the chosen experts of one token, by number, from the definitions. */
function expectedWeights(logits: readonly number[], options: RouterOptions, selection: readonly number[]): Map<number, number> {
  const total = logits.reduce((sum, z) => sum + Math.exp(z), 0);
  const scores = logits.map((z) => (options.score === "sigmoid" ? 1 / (1 + Math.exp(-z)) : Math.exp(z) / total));
  const merit = scores.map((score, e) => score + selection[e]);
  const { groups = 1, chosenGroups = 1, chosen, normalise = true, scale = 1 } = options;
  const size = E / groups;
  const worth = Array.from({ length: groups }, (_, g) =>
    merit
      .slice(g * size, (g + 1) * size)
      .sort((a, b) => b - a)
      .slice(0, 2)
      .reduce((a, b) => a + b, 0),
  );
  const open = [...worth.keys()].sort((a, b) => worth[b] - worth[a]).slice(0, chosenGroups);
  const picked = [...merit.keys()]
    .filter((e) => groups === 1 || open.includes(Math.floor(e / size)))
    .sort((a, b) => merit[b] - merit[a])
    .slice(0, chosen);
  const sum = normalise ? picked.reduce((all, e) => all + scores[e], 0) : 1;
  return new Map(picked.map((e) => [e, (scale * scores[e]) / sum]));
}

function expectedRows(
  x: Float32Array,
  logits: Float32Array,
  options: RouterOptions,
  selection: readonly number[],
  from = weights,
): number[] {
  const [up, down] = [from.up.data, from.down.data];
  return Array.from({ length: x.length / C }, (_, n) => {
    const row = Array<number>(C).fill(0);
    for (const [e, share] of expectedWeights([...logits.subarray(n * E, (n + 1) * E)], options, selection)) {
      const feature = (i: number): number => {
        let total = 0;
        for (let c = 0; c < C; c++) total += up[(e * 2 * M + i) * C + c] * x[n * C + c];
        return total;
      };
      for (let m = 0; m < M; m++) {
        const gate = feature(2 * m);
        const inner = (gate / (1 + Math.exp(-gate))) * feature(2 * m + 1);
        for (let c = 0; c < C; c++) row[c] += share * inner * down[(e * C + c) * M + m];
      }
    }
    return row;
  }).flat();
}

const noSelection = Array<number>(E).fill(0);
const rules: [name: string, options: RouterOptions, selection: number[]][] = [
  ["Mixtral: softmax of the chosen", { chosen: 2 }, noSelection],
  ["Qwen 2: softmax, not normalised", { chosen: 3, normalise: false }, noSelection],
  ["one expert", { chosen: 1 }, noSelection],
  [
    "DeepSeek-V3: sigmoid, groups, selection bias, factor",
    { chosen: 2, score: "sigmoid", groups: 3, chosenGroups: 2, scale: 2.5 },
    [0.3, -0.2, 0.1, 0, -0.4, 0.2],
  ],
];

describe.each(rules)("%s", (_, options, selection) => {
  test.each<[ExpertsEmission, number]>([
    ["grouped", 1],
    ["grouped", 9],
    ["dense", 9],
    ["fused", 1],
    ["fused", 9],
  ])("%s, %i tokens", (emission, tokens) => {
    const [x, logits] = [random([tokens, C], 7), random([tokens, E], 8, 2)];
    const program = compile(
      backend,
      (inputs) => {
        const routing = route(inputs.logits, options, inputs.selection);
        return expertLayer(inputs.x, { up: inputs.up, down: inputs.down }, routing, { activate: silu, emission });
      },
      {
        x: spec("f32", x.shape),
        logits: spec("f32", logits.shape),
        selection: spec("f32", [E]),
        up: spec("f32", weights.up.shape),
        down: spec("f32", weights.down.shape),
      },
      { threads: 1 },
    );
    const y = program.run({ x, logits, selection: bufferFrom("f32", [E], selection), ...weights }).data as Float32Array;
    const expected = expectedRows(x.data, logits.data, options, selection);
    for (const [i, value] of expected.entries()) expect(Math.abs(y[i] - value), `value ${i}`).toBeLessThan(2e-5);
    program.dispose();
  });
});

test("the quantised kernel computes with the weights that its blocks stand for", () => {
  const [up, down] = [packStackQ8(weights.up, { blockSize: 16 }), packStackQ8(random([E, C, 16], 4), { blockSize: 16 })];
  // Rows of down have to be whole blocks: experts of width 16.
  const wide = random([E, 32, C], 5);
  const packed = { up: packStackQ8(wide, { blockSize: 16 }), down };
  expect(up.packed.shape).toEqual([E, 2 * M, C]);
  const flat = (weight: typeof down, out: number) =>
    unpack(
      {
        packed: bufferFrom("u8", [E * out, 1, 16], weight.packed.data as Uint8Array),
        scales: bufferFrom("f32", [E * out, 1], weight.scales.data as Float32Array),
      },
      16,
    );
  const [x, logits] = [random([3, C], 7), random([3, E], 8, 2)];
  const run = (quantised: boolean): Float32Array => {
    const specs = (weight: typeof down) => ({ packed: spec("u8", weight.packed.shape), scales: spec("f32", weight.scales.shape) });
    const inputs = quantised
      ? { up: specs(packed.up), down: specs(packed.down) }
      : { up: spec("f32", [E, 32, C]), down: spec("f32", [E, C, 16]) };
    const program = compile(
      backend,
      (traced) => {
        const matrices = traced as unknown as Parameters<typeof expertLayer>[1];
        const emission = quantised ? "fused" : "dense";
        return expertLayer(traced.x, matrices, route(traced.logits, { chosen: 2 }), { activate: silu, emission });
      },
      { x: spec("f32", x.shape), logits: spec("f32", logits.shape), ...inputs },
      { threads: 1 },
    );
    const values = quantised
      ? packed
      : { up: bufferFrom("f32", [E, 32, C], flat(packed.up, 32).data), down: bufferFrom("f32", [E, C, 16], flat(packed.down, C).data) };
    const y = (program.run({ x, logits, ...values } as never) as unknown as TensorBuffer<"f32">).data.slice();
    program.dispose();
    return y;
  };
  const [own, expected] = [run(true), run(false)];
  for (let i = 0; i < own.length; i++) expect(Math.abs(own[i] - expected[i])).toBeLessThan(2e-5);
});

test("the load-balancing loss is K for an even load and E for one expert that gets everything", () => {
  const loss = (logits: number[][], chosen: number): number => {
    const buffer = bufferFrom("f32", [logits.length, E], logits.flat());
    const program = compile(
      backend,
      ({ z }) => balanceLoss([{ logits: z, chosen: route(z, { chosen }).chosen }]),
      { z: spec("f32", buffer.shape) },
      { threads: 1 },
    );
    const value = Number((program.run({ z: buffer }) as TensorBuffer<"f32">).data[0]);
    program.dispose();
    return value;
  };
  // Token n prefers expert n, slightly; and expert n + 1 next.
  const even = Array.from({ length: E }, (_, n) => Array.from({ length: E }, (_value, e) => (e === n ? 0.2 : e === (n + 1) % E ? 0.1 : 0)));
  expect(loss(even, 1)).toBeCloseTo(1, 6);
  expect(loss(even, 2)).toBeCloseTo(2, 6);
  const collapsed = Array.from({ length: E }, () => [40, 0, 0, 0, 0, 0]);
  expect(loss(collapsed, 1)).toBeCloseTo(E, 5);
});

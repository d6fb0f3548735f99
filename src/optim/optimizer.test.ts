import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { BackendError, CheckpointError, NotFiniteError, ShapeError, UsageError } from "../base/errors.ts";
import type { Backend } from "../runtime/backend.ts";
import { allocate, type TensorBuffer } from "../runtime/buffer.ts";
import { allocateFlat, type FlatBuffer, layoutOf } from "../runtime/flat.ts";
import { openBackend } from "../runtime/open.ts";
import { spec } from "../runtime/program.ts";
import { chunkLength } from "./chunks.ts";
import { ElementwiseUpdate } from "./elementwise-update.ts";
import { createOptimizer } from "./optimizer.ts";
import { type OptimizerKind, type OptimizerOptions, optimizerSchema, parseOptimizerOptions, updateRule } from "./optimizer-options.ts";
import { arrayDifference, difference, fill, flatFrom, type GoldenCase, golden, leafOf, sameBytes, translate } from "./testing/golden.ts";

let backend: Backend;
beforeAll(() => {
  ({ backend } = openBackend({ threads: 1 }));
});
afterAll(() => backend.dispose());

const elementwise = golden.cases.filter(({ optimiser }) => optimiser !== "muon");
const kinds: OptimizerKind[] = optimizerSchema.options.map(({ shape }) => shape.kind.value);
const title = ({ optimiser, options, learningRates }: GoldenCase): string =>
  `${optimiser} ${JSON.stringify(options)}${learningRates ? " with changing rates" : ""}`;

/** Runs a case to its end and returns the largest difference of the parameters after any step. */
function play(one: GoldenCase, dtype: "f32" | "f64") {
  const parameters = flatFrom(one.parameters, dtype);
  const gradients = flatFrom(one.gradients[0], dtype);
  const optimizer = createOptimizer(backend, translate(one), parameters, gradients);
  let worst = 0;
  for (const [i, given] of one.gradients.entries()) {
    fill(gradients, given);
    optimizer.step({ learningRate: one.learningRates?.[i] });
    worst = Math.max(worst, difference(parameters, one.parametersAfter[i]));
  }
  return { optimizer, parameters, gradients, worst };
}

describe("golden updates", () => {
  test.each(elementwise.map((one) => [title(one), one] as const))("%s", (_, one) => {
    const { optimizer, worst } = play(one, "f64");
    expect(worst).toBeLessThan(1e-10);
    expect(optimizer.stepCount).toBe(5);
    optimizer.dispose();
    const single = play(one, "f32");
    expect(single.worst).toBeLessThan(2e-5);
    single.optimizer.dispose();
  });

  test("the state is that of the reference, up to the documented factors", () => {
    const checks: [kind: string, longwave: string, reference: string, factor: (o: Record<string, number>) => number][] = [
      ["adam", "firstMoment", "exp_avg", (o) => 1 - o.beta1],
      ["adam", "secondMoment", "exp_avg_sq", (o) => 1 - o.beta2],
      ["adamw", "maxSecondMoment", "max_exp_avg_sq", (o) => 1 - o.beta2],
      ["nadam", "secondMoment", "exp_avg_sq", (o) => 1 - o.beta2],
      ["radam", "firstMoment", "exp_avg", (o) => 1 - o.beta1],
      ["adamax", "infinityNorm", "exp_inf", () => 1],
      ["sgd", "velocity", "momentum_buffer", () => 1],
      ["rmsprop", "secondMoment", "square_avg", (o) => 1 - o.alpha],
      ["rmsprop", "firstMoment", "grad_avg", (o) => 1 - o.alpha],
      ["rmsprop", "velocity", "momentum_buffer", (o) => 1 / Math.sqrt(1 - o.alpha)],
      ["rmspropTfLike", "secondMoment", "square_avg", (o) => 1 - o.alpha],
      ["adagrad", "squareSum", "sum", () => 1],
      ["lion", "momentum", "exp_avg", (o) => (1 - o.beta1) / o.beta1],
    ];
    for (const [kind, own, reference, factorOf] of checks) {
      const one = elementwise.find(({ optimiser, finalState }) => optimiser === kind && reference in finalState.weight) as GoldenCase;
      const { optimizer, parameters } = play(one, "f64");
      const factor = factorOf(optimizer.options as unknown as Record<string, number>);
      for (const [path, state] of Object.entries(one.finalState)) {
        const values = leafOf(optimizer.state()[own], parameters, path).map((x) => x * factor);
        expect(arrayDifference(values, state[reference]), `${kind} ${own} of ${path}`).toBeLessThan(1e-10);
      }
      optimizer.dispose();
    }
  });
});

/** Parameters in two groups whose first is longer than a chunk, filled with reproducible numbers. */
function model(
  dtype: "f32" | "f64",
  length = chunkLength(backend) + 77,
): { parameters: FlatBuffer<unknown>; gradients: FlatBuffer<unknown> } {
  const tree = { big: spec(dtype, [length]), norm: spec(dtype, [5]), matrix: spec(dtype, [6, 7]), bias: spec(dtype, [3]) };
  const layout = layoutOf(tree, (path) => (path === "norm" || path === "bias" ? "plain" : "decayed"));
  const [parameters, gradients] = [allocateFlat(tree, layout), allocateFlat(tree, layout)];
  for (const { data } of parameters.leaves.values()) for (let i = 0; i < data.length; i++) data[i] = Math.sin(1 + i * 0.7);
  for (const { data } of gradients.leaves.values()) for (let i = 0; i < data.length; i++) data[i] = Math.cos(i * 1.3) * 0.1;
  return { parameters: parameters as FlatBuffer<unknown>, gradients: gradients as FlatBuffer<unknown> };
}

const busy: Record<OptimizerKind, OptimizerOptions> = {
  adam: { kind: "adam", weightDecay: 0.1, amsgrad: true },
  adamw: { kind: "adamw", weightDecay: 0.1 },
  nadam: { kind: "nadam", weightDecay: 0.1, decoupledWeightDecay: true },
  radam: { kind: "radam", weightDecay: 0.1 },
  adamax: { kind: "adamax", weightDecay: 0.1 },
  sgd: { kind: "sgd", momentum: 0.9, dampening: 0.2, weightDecay: 0.1 },
  rmsprop: { kind: "rmsprop", momentum: 0.9, centered: true, weightDecay: 0.1 },
  "rmsprop-tf-like": { kind: "rmsprop-tf-like", momentum: 0.9, weightDecay: 0.1 },
  adagrad: { kind: "adagrad", learningRateDecay: 0.1, weightDecay: 0.1 },
  lion: { kind: "lion", weightDecay: 0.1 },
  muon: { kind: "muon", weightDecay: 0.1 },
};
/** Elements between and behind the leaves. */
function paddingOf({ layout, buffer }: FlatBuffer<unknown>): Float32Array {
  const padding = (buffer.data as Float32Array).slice();
  for (const { offset, length } of layout.leaves) padding.fill(0, offset, offset + length);
  return padding;
}
const copyOf = (state: Readonly<Record<string, TensorBuffer>>): Record<string, TensorBuffer> =>
  Object.fromEntries(
    Object.entries(state).map(([name, { dtype, shape, data }]) => [name, { dtype, shape, data: data.slice() } as TensorBuffer]),
  );

describe.each(kinds)("%s", (kind) => {
  test("resumes bit for bit, by restore and in place", () => {
    const { parameters, gradients } = model("f32", 500);
    const optimizer = createOptimizer(backend, busy[kind], parameters, gradients);
    const stepAt = (one: typeof optimizer, step: number) => one.step({ learningRate: 0.01 / (step + 1), gradientScale: 1 - 0.1 * step });
    for (let step = 0; step < 3; step++) stepAt(optimizer, step);
    const saved = { parameters: parameters.buffer.data.slice(), state: copyOf(optimizer.state()) };
    for (let step = 3; step < 6; step++) stepAt(optimizer, step);
    const expected = parameters.buffer.data.slice();
    const expectedState = copyOf(optimizer.state());
    optimizer.dispose();

    for (const inPlace of [false, true]) {
      (parameters.buffer.data as Float32Array).set(saved.parameters as Float32Array);
      const other = createOptimizer(backend, busy[kind], parameters, gradients);
      if (inPlace) {
        for (const [name, { data }] of Object.entries(other.state())) (data as Float32Array).set(saved.state[name].data as Float32Array);
      } else other.restore(saved.state);
      expect(other.stepCount).toBe(3);
      for (let step = 3; step < 6; step++) stepAt(other, step);
      expect(sameBytes(parameters.buffer.data, expected)).toBe(true);
      expect(copyOf(other.state())).toEqual(expectedState);
      other.dispose();
    }
  });

  test("leaves padding at zero, and every chunk as if it were alone", () => {
    const { parameters, gradients } = model("f32");
    const optimizer = createOptimizer(backend, busy[kind], parameters, gradients, { plain: { weightDecay: 0 } });
    for (let step = 0; step < 3; step++) optimizer.step({ learningRate: 0.01 });
    expect(parameters.layout.length).toBeGreaterThan(parameters.layout.leaves.reduce((sum, { length }) => sum + length, 0));
    expect(paddingOf(parameters).every((x) => Object.is(x, 0))).toBe(true);
    // The same numbers in a buffer shorter than a chunk.
    const small = model("f32", 1000);
    const reference = createOptimizer(backend, busy[kind], small.parameters, small.gradients, { plain: { weightDecay: 0 } });
    for (let step = 0; step < 3; step++) reference.step({ learningRate: 0.01 });
    for (const path of ["norm", "matrix", "bias"]) {
      expect(parameters.leaves.get(path)?.data).toEqual(small.parameters.leaves.get(path)?.data);
    }
    const big = parameters.leaves.get("big")?.data as Float32Array;
    // Muon looks at a matrix as a whole; "big" is a vector, so all optimisers treat its elements one by one.
    expect(big.slice(0, 1000)).toEqual(small.parameters.leaves.get("big")?.data);
    expect(big.every(Number.isFinite)).toBe(true);
    optimizer.dispose();
    reference.dispose();
  });

  test("scales gradients, and goes up instead of down", () => {
    const run = (options: OptimizerOptions, factor: number, gradientScale: number): Float64Array => {
      const { parameters, gradients } = model("f64", 40);
      for (let i = 0; i < gradients.buffer.data.length; i++) (gradients.buffer.data as Float64Array)[i] *= factor;
      const optimizer = createOptimizer(backend, options, parameters, gradients);
      for (let step = 0; step < 3; step++) optimizer.step({ learningRate: 0.01, gradientScale });
      optimizer.dispose();
      return parameters.buffer.data as Float64Array;
    };
    const expected = run(busy[kind], 0.25, 1);
    expect(run(busy[kind], 1, 0.25)).toEqual(expected);
    expect(run({ ...busy[kind], maximize: true } as OptimizerOptions, -0.25, 1)).toEqual(expected);
    expect(run(busy[kind], 1, 1)).not.toEqual(run(busy[kind], -1, 1));
  });
});

describe("groups", () => {
  test.each(kinds)("%s: each group has its own decay and learning rate", (kind) => {
    const run = (options: OptimizerOptions, rate: number, groups = {}): FlatBuffer<unknown> => {
      const { parameters, gradients } = model("f64", 40);
      const optimizer = createOptimizer(backend, options, parameters, gradients, groups);
      for (let step = 0; step < 2; step++) optimizer.step({ learningRate: rate });
      optimizer.dispose();
      return parameters;
    };
    const mixed = run(busy[kind], 0.01, { plain: { weightDecay: 0, learningRateScale: 0.5 }, decayed: { weightDecay: 0.2 } });
    const adamw = kind === "muon" ? { adamw: { weightDecay: 0 } } : {};
    const plain = run({ ...busy[kind], weightDecay: 0, ...adamw } as OptimizerOptions, 0.005);
    const decayed = run(
      { ...busy[kind], weightDecay: 0.2, ...(kind === "muon" && { adamw: { weightDecay: 0.2 } }) } as OptimizerOptions,
      0.01,
    );
    for (const path of ["norm", "bias"]) expect(mixed.leaves.get(path)?.data).toEqual(plain.leaves.get(path)?.data);
    for (const path of ["big", "matrix"]) expect(mixed.leaves.get(path)?.data).toEqual(decayed.leaves.get(path)?.data);
    expect(mixed.leaves.get("norm")?.data).not.toEqual(decayed.leaves.get("norm")?.data);
  });

  test("a group that the layout does not have is an error that names the nearest", () => {
    const { parameters, gradients } = model("f32", 8);
    expect(() => createOptimizer(backend, { kind: "sgd" }, parameters, gradients, { plian: {} })).toThrow(
      expect.objectContaining({ name: "UsageError", hint: 'Did you mean "plain"?' }),
    );
    expect(() => createOptimizer(backend, { kind: "sgd" }, parameters, gradients, { plain: { weightDecay: -1 } })).toThrow(UsageError);
  });
});

describe("laws", () => {
  test("AdamW's first step is the sign of the gradient times the rate, whatever the gradient's size", () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 1e-2, max: 1e6, noNaN: true }), { minLength: 1, maxLength: 30 }),
        fc.double({ min: 1e-5, max: 1, noNaN: true }),
        (sizes, rate) => {
          const parameters = flatFrom({ x: sizes.map(() => 0) });
          const signed = sizes.map((size, i) => (i % 2 ? size : -size));
          const optimizer = createOptimizer(backend, { kind: "adamw" }, parameters, flatFrom({ x: signed }));
          optimizer.step({ learningRate: rate });
          optimizer.dispose();
          expect(difference(parameters, { x: signed.map((g) => -Math.sign(g) * rate) })).toBeLessThan(2e-6);
        },
      ),
      { numRuns: 10 },
    );
  });

  test("every optimiser finds the minimum of a quadratic", () => {
    for (const kind of kinds) {
      const target = [
        [1, -2, 0.5],
        [-0.3, 1.5, 2],
      ];
      const parameters = flatFrom({ w: target.map((row) => row.map(() => 0)) });
      const gradients = flatFrom({ w: target });
      const options = { kind, weightDecay: 0 } as OptimizerOptions;
      const optimizer = createOptimizer(backend, options, parameters, gradients);
      const loss = () => difference(parameters, { w: target });
      const before = loss();
      const [w, g] = [parameters, gradients].map((buffer) => buffer.leaves.get("w")?.data as Float64Array);
      const base = { sgd: 0.2, adagrad: 1, radam: 0.2 }[kind as string] ?? 0.05;
      for (let step = 0; step < 300; step++) {
        for (let i = 0; i < w.length; i++) g[i] = w[i] - target.flat()[i];
        optimizer.step({ learningRate: base * (1 - step / 300) });
      }
      expect(loss(), kind).toBeLessThan(before * 0.02);
      optimizer.dispose();
    }
  });

  test("AdamW makes 12 passes over decayed parameters and 11 over others", () => {
    const { parameters, gradients } = model("f32", 8);
    const settings = { learningRateScale: 1 };
    const [first, second] = parameters.layout.groups;
    using update = new ElementwiseUpdate(backend, "adamw", {
      rule: updateRule(parseOptimizerOptions({ kind: "adamw" }) as never),
      parameters,
      gradients,
      spans: [
        { ...first, settings: { ...settings, weightDecay: 0.1 } },
        { ...second, settings: { ...settings, weightDecay: 0 } },
      ],
      maximize: false,
    });
    expect(update.nodeCounts).toEqual({ withWeightDecay: 12, without: 11 });
  });
});

describe("errors", () => {
  const create = (options: unknown) => {
    const { parameters, gradients } = model("f32", 8);
    return createOptimizer(backend, options as OptimizerOptions, parameters, gradients);
  };

  test("options", () => {
    expect(() => create({ kind: "adamww" })).toThrow(expect.objectContaining({ name: "UsageError", hint: 'Did you mean "adamw"?' }));
    expect(() => create({})).toThrow(/expected kind to be one of adam, adamw/);
    expect(() => create({ kind: "adamw", weigthDecay: 0.1 })).toThrow(expect.objectContaining({ hint: "Did you mean `weightDecay`?" }));
    expect(() => create({ kind: "adam", learningRate: -1 })).toThrow(/learningRate.*expected a number >= 0, got -1/);
    expect(() => create({ kind: "adam", beta1: 1 })).toThrow(UsageError);
    expect(() => create({ kind: "adam", epsilon: 0 })).toThrow(UsageError);
    expect(() => create({ kind: "sgd", nesterov: true })).toThrow(/nesterov.*momentum above 0/);
    expect(() => create({ kind: "sgd", nesterov: true, momentum: 0.9, dampening: 0.1 })).toThrow(UsageError);
    expect(parseOptimizerOptions({ kind: "adamw" })).toEqual({
      kind: "adamw",
      learningRate: 1e-3,
      beta1: 0.9,
      beta2: 0.999,
      epsilon: 1e-8,
      weightDecay: 1e-2,
      amsgrad: false,
      maximize: false,
    });
  });

  test("a wrong step changes nothing", () => {
    const { parameters, gradients } = model("f32", 8);
    const optimizer = createOptimizer(backend, { kind: "adamw" }, parameters, gradients);
    const before = parameters.buffer.data.slice();
    expect(() => optimizer.step({ learningRate: -0.1 })).toThrow(UsageError);
    expect(() => optimizer.step({ learningRate: Number.NaN })).toThrow(UsageError);
    expect(() => optimizer.step({ gradientScale: Number.NaN })).toThrow(NotFiniteError);
    expect(optimizer.stepCount).toBe(0);
    expect(parameters.buffer.data).toEqual(before);
    optimizer.dispose();
    optimizer.dispose();
    expect(() => optimizer.step()).toThrow(BackendError);
  });

  test("memory that does not fit", () => {
    const { parameters } = model("f32", 8);
    expect(() => createOptimizer(backend, { kind: "sgd" }, parameters, model("f32", 9).gradients)).toThrow(ShapeError);
    expect(() => createOptimizer(backend, { kind: "sgd" }, parameters, model("f64", 8).gradients)).toThrow(ShapeError);
    const integers = allocateFlat({ x: spec("i32", [4]) }) as FlatBuffer<unknown>;
    expect(() => createOptimizer(backend, { kind: "sgd" }, integers, integers)).toThrow(/expected parameters of f32 or f64/);
  });

  test("a foreign state", () => {
    const { parameters, gradients } = model("f32", 8);
    using optimizer = createOptimizer(backend, { kind: "adamw" }, parameters, gradients);
    const state = copyOf(optimizer.state());
    expect(() => optimizer.restore({ ...state, secondMoment: allocate("f32", [3]) })).toThrow(CheckpointError);
    const { firstMoment: _, ...rest } = state;
    expect(() => optimizer.restore(rest)).toThrow(CheckpointError);
    expect(() => {
      optimizer.stepCount = -1;
    }).toThrow(UsageError);
  });
});

// Laws of the action distributions; values and derivatives against the libraries are golden (test/golden/rl/control).
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { PolicyHead } from "../../../models/policy/config.ts";
import type { Backend } from "../../../runtime/backend.ts";
import { bufferFrom, type TensorBuffer } from "../../../runtime/buffer.ts";
import { openBackend } from "../../../runtime/open.ts";
import { compile, spec } from "../../../runtime/program.ts";
import { sum } from "../../../tensor/core.ts";
import type { Tensor } from "../../../tensor/graph.ts";
import { randomDense } from "../../../tensor/testing/reference.ts";
import { distributionFrom, klOf } from "./distribution.ts";
import { hostDistribution } from "./host.ts";

let backend: Backend;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
});
afterAll(() => backend.dispose());

const heads: Record<string, PolicyHead> = {
  categorical: { kind: "categorical", n: 4 },
  "multi-categorical": { kind: "multi-categorical", dims: [2, 3] },
  bernoulli: { kind: "bernoulli", n: 3 },
  gaussian: { kind: "gaussian", size: 2, squash: false },
  "squashed gaussian": { kind: "gaussian", size: 2, squash: true },
  gsde: { kind: "gsde", size: 2, squash: false, fullStd: true, useExpln: false, learnFeatures: false },
};
const widths: Record<string, number> = {
  categorical: 4,
  "multi-categorical": 5,
  bernoulli: 3,
  gaussian: 2,
  "squashed gaussian": 2,
  gsde: 2,
};
const rows = 3;

const randoms = (shape: readonly number[], seed: number, low: number, high: number): TensorBuffer<"f64"> =>
  bufferFrom("f64", shape, randomDense(seed, shape, low, high).data);

/** Parameters of a distribution of each kind, at random; variances are positive. */
function parametersOf(name: string, seed: number): TensorBuffer<"f64">[] {
  const width = widths[name];
  const first = randoms([rows, width], seed, -2, 2);
  if (name === "gsde") return [first, randoms([rows, width], seed + 1, 0.2, 2)];
  return name.includes("gaussian") ? [first, randoms([width], seed + 1, -1, 0.5)] : [first];
}

type Trace = (inputs: Record<string, Tensor>) => Record<string, Tensor>;

function run(buffers: Record<string, TensorBuffer>, trace: Trace): Record<string, Float64Array> {
  const specs = Object.fromEntries(Object.entries(buffers).map(([key, { dtype, shape }]) => [key, spec(dtype, shape)]));
  using program = compile(backend, trace as never, specs, { threads: 1 });
  const outputs = program.run(buffers as never) as unknown as Record<string, TensorBuffer<"f64">>;
  return Object.fromEntries(Object.entries(outputs).map(([key, { data }]) => [key, data]));
}

const named = (prefix: string, buffers: readonly TensorBuffer[]): Record<string, TensorBuffer> =>
  Object.fromEntries(buffers.map((buffer, i) => [`${prefix}${i}`, buffer]));
const listed = (prefix: string, inputs: Record<string, Tensor>, count: number): Tensor[] =>
  Array.from({ length: count }, (_, i) => inputs[`${prefix}${i}`]);

describe.each(Object.keys(heads))("%s", (name) => {
  const head = heads[name];

  test("KL is 0 to itself, positive to another, and the Fisher product is the Hessian of either direction", () => {
    const own = parametersOf(name, 3);
    const other = parametersOf(name, 30);
    const along = parametersOf(name, 60);
    const count = own.length;
    const result = run({ ...named("own", own), ...named("other", other), ...named("along", along) }, (inputs) => {
      const parameters = listed("own", inputs, count);
      const p = distributionFrom(head, parameters);
      const q = distributionFrom(head, listed("other", inputs, count));
      const direction = listed("along", inputs, count);
      const products = p.fisher(direction);
      return { self: klOf(p, p), apart: klOf(p, q), ...Object.fromEntries(products.map((x, i) => [`product${i}`, x])) };
    });
    for (const value of result.self) expect(Math.abs(value)).toBeLessThan(1e-12);
    for (const value of result.apart) expect(value).toBeGreaterThan(0);

    // Second differences of the KL along the direction: vᵀ F v = d²/dε² KL(p ‖ p + ε v) at 0.
    const quadratic = products(result, along).reduce((a, b) => a + b, 0);
    const step = 1e-3;
    const moved = (scale: number): TensorBuffer<"f64">[] =>
      own.map(({ shape, data }, i) =>
        bufferFrom(
          "f64",
          shape,
          data.map((x, j) => x + scale * along[i].data[j]),
        ),
      );
    for (const forward of [true, false]) {
      const at = (scale: number): number => {
        const { kl } = run({ ...named("own", own), ...named("other", moved(scale)) }, (inputs) => {
          const p = distributionFrom(head, listed("own", inputs, count));
          const q = distributionFrom(head, listed("other", inputs, count));
          return { kl: sum(forward ? klOf(p, q) : klOf(q, p)) };
        });
        return kl[0];
      };
      const second = (at(step) + at(-step)) / step ** 2;
      expect(second / quadratic).toBeCloseTo(1, 4);
    }
  });

  test("what the host draws has the frequencies, and the entropy, that it claims", () => {
    const buffers = parametersOf(name, 7);
    // One latent feature of 1 for gSDE: its std is then that of the action.
    const latent = new Float64Array(rows).fill(1);
    const logStd =
      name === "gsde" ? buffers[1].data.slice(0, 2).map((x) => Math.log(x) / 2) : (buffers[1]?.data as Float64Array | undefined);
    const host = hostDistribution(
      head,
      { outputs: buffers[0].data, ...(logStd ? { logStd } : {}), ...(name === "gsde" ? { latent } : {}) },
      { seed: 5, stream: 9 },
    );
    host.refresh();
    const action = new Float64Array(8);
    const numDraws = 4000;
    let [surprise, squares, mean] = [0, 0, 0];
    for (let i = 0; i < numDraws; i++) {
      host.resetNoise(rows, i);
      const logProb = host.sample(1, i, action, 0);
      expect(logProb).toBeCloseTo(host.logProb(1, action, 0), 9);
      surprise -= logProb;
      squares += logProb * logProb;
      mean += action[0];
    }
    const entropy = host.entropy(1);
    const average = surprise / numDraws;
    const error = Math.sqrt(squares / numDraws - average ** 2) / Math.sqrt(numDraws);
    if (!Number.isNaN(entropy)) expect(Math.abs(average - entropy)).toBeLessThan(5 * error + 1e-3);
    else expect(name).toBe("squashed gaussian");
    host.mode(1, action, 0);
    if (name === "gaussian" || name === "gsde") expect(Math.abs(mean / numDraws - action[0])).toBeLessThan(0.2);
  });
});

const products = (result: Record<string, Float64Array>, along: readonly TensorBuffer<"f64">[]): number[] =>
  along.map(({ data }, i) => data.reduce((total, v, j) => total + v * result[`product${i}`][j], 0));

test("a forbidden action is never drawn, nor the most probable", () => {
  fc.assert(
    fc.property(
      fc.array(fc.double({ min: -30, max: 30, noNaN: true }), { minLength: 4, maxLength: 4 }),
      fc.array(fc.boolean(), { minLength: 4, maxLength: 4 }).filter((mask) => mask.some(Boolean)),
      (logits, mask) => {
        const masks = Uint8Array.from(mask, Number);
        const host = hostDistribution({ kind: "categorical", n: 4 }, { outputs: Float64Array.from(logits), masks }, { seed: 1, stream: 2 });
        const action = new Float64Array(1);
        for (let i = 0; i < 20; i++) {
          expect(Number.isFinite(host.sample(0, i, action, 0))).toBe(true);
          expect(masks[action[0]]).toBe(1);
        }
        host.mode(0, action, 0);
        expect(masks[action[0]]).toBe(1);
      },
    ),
  );
});

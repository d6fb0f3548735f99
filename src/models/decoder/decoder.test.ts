// The parallel face against a second, plain implementation, and the gradient of every parameter against finite differences: float64.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Backend } from "../../runtime/backend.ts";
import { bufferFrom, type TensorBuffer } from "../../runtime/buffer.ts";
import { openBackend } from "../../runtime/open.ts";
import { compile, spec } from "../../runtime/program.ts";
import { gradients } from "../../tensor/gradient.ts";
import { uniforms } from "../../tensor/testing/reference.ts";
import { flatten, mapTree } from "../../tensor/tree.ts";
import type { DecoderConfig } from "./config.ts";
import { type DecoderTensors, languageModelLoss } from "./decoder.ts";
import { negativeLogLikelihood, type ReferenceOptions, referenceLogits } from "./testing/reference.ts";
import { randomDecoder, randomIds, variants } from "./testing/variants.ts";

let backend: Backend;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
});
afterAll(() => backend.dispose());

const batch = 2;
const time = 6;

interface Case {
  config: DecoderConfig;
  ids: number[];
  labels: number[];
  weights?: number[];
  documents?: number[];
  positions?: number[];
}

/** The loss program in float64 over parameters that may be moved. */
function lossOf({ config, ids, labels, weights, documents, positions }: Case) {
  const decoder = randomDecoder(config);
  const shape = [batch, time];
  const values = { ids, labels, documents, positions };
  const given = Object.entries(values).filter(([, list]) => list !== undefined);
  const program = compile(
    backend,
    ({ parameters, ...inputs }) => {
      const { loss, logProbs } = languageModelLoss(config, parameters as unknown as DecoderTensors, inputs as never);
      return { loss, logProbs, gradients: gradients(loss, parameters as never) };
    },
    {
      parameters: mapTree(decoder.specs, (leaf) => spec("f64", leaf.shape)),
      ...Object.fromEntries(given.map(([name]) => [name, spec("i32", shape)])),
      ...(weights ? { weights: spec("f64", shape) } : {}),
    } as Record<string, unknown>,
    { threads: 1 },
  );
  const parameters = mapTree(decoder.parameters.tree, ({ shape }, path) =>
    bufferFrom("f64", shape as number[], decoder.parameters.leaves.get(path)?.data as Float32Array),
  );
  const call = program.bind({
    parameters,
    ...Object.fromEntries(given.map(([name, list]) => [name, bufferFrom("i32", shape, list as number[])])),
    ...(weights ? { weights: bufferFrom("f64", shape, weights) } : {}),
  } as never);
  const leaves = new Map(flatten<TensorBuffer>(parameters as never));
  const outputs = call.outputs as unknown as Record<"loss" | "logProbs", TensorBuffer<"f64">> & { gradients: unknown };
  return {
    leaves,
    gradients: () => new Map(flatten<TensorBuffer<"f64">>(outputs.gradients as never).map(([path, { data }]) => [path, data.slice()])),
    logProbs: outputs.logProbs.data,
    run: (): number => {
      call.run();
      return outputs.loss.data[0];
    },
    dispose: () => program.dispose(),
  };
}

function expectReference(loss: ReturnType<typeof lossOf>, { config, ids, labels, weights, documents, positions }: Case): void {
  const value = loss.run();
  let [total, count] = [0, 0];
  for (let b = 0; b < batch; b++) {
    const rowOf = <T>(list: readonly T[] | undefined) => list?.slice(b * time, (b + 1) * time);
    const options: ReferenceOptions = { documents: rowOf(documents), positions: rowOf(positions) };
    const logits = referenceLogits(config, loss.leaves, rowOf(ids) as number[], options);
    for (const [t, row] of logits.entries()) {
      const expected = negativeLogLikelihood(row, labels[b * time + t]);
      expect(-loss.logProbs[b * time + t]).toBeCloseTo(expected, 8);
      const weight = weights?.[b * time + t] ?? 1;
      total += weight * expected;
      count += weight;
    }
  }
  expect(value).toBeCloseTo(total / count, 8);
}

/** For each leaf the derivative along a random direction. */
function expectGradients(loss: ReturnType<typeof lossOf>): void {
  loss.run();
  const all = loss.gradients();
  expect([...all.keys()]).toEqual([...loss.leaves.keys()]);
  const next = uniforms(9);
  const step = 1e-5;
  for (const [path, { data }] of loss.leaves) {
    const values = data as Float64Array;
    const saved = values.slice();
    const direction = saved.map(() => next() - 0.5);
    const along = (sign: number): number => {
      for (let i = 0; i < values.length; i++) values[i] = saved[i] + sign * step * direction[i];
      return loss.run();
    };
    const difference = (along(1) - along(-1)) / (2 * step);
    values.set(saved);
    const expected = (all.get(path) as Float64Array).reduce((total, value, i) => total + value * direction[i], 0);
    expect(Math.abs(difference - expected), `${path}: ${difference} and ${expected}`).toBeLessThan(1e-6 * Math.max(1, Math.abs(expected)));
    // A leaf without influence would pass: only biases of a choice have none.
    if (path.endsWith("router.selection")) expect(expected, path).toBe(0);
    else expect(Math.abs(expected), path).toBeGreaterThan(1e-5);
  }
}

const caseOf = (config: DecoderConfig): Case => {
  const ids = randomIds(config, batch * time + 1);
  return { config, ids: ids.slice(0, -1), labels: ids.slice(1) };
};

describe.each(variants)("$name", ({ config }) => {
  test("loss and gradients", () => {
    const given = caseOf(config);
    const loss = lossOf(given);
    expectReference(loss, given);
    expectGradients(loss);
    loss.dispose();
  });

  test("packed documents whose positions restart, and labels that do not count", () => {
    const given: Case = {
      ...caseOf(config),
      documents: [0, 0, 1, 1, 1, 2, 0, 0, 0, 0, -1, -1],
      positions: [0, 1, 0, 1, 2, 0, 0, 1, 2, 3, 0, 0],
      weights: [1, 0, 1, 1, 0, 1, 1, 1, 1, 0, 0, 0],
    };
    const loss = lossOf(given);
    expectReference(loss, given);
    expectGradients(loss);
    loss.dispose();
  });
});

test("a later token changes nothing before it", () => {
  for (const { config } of variants) {
    const given = caseOf(config);
    const before = lossOf(given);
    before.run();
    const after = lossOf({ ...given, ids: given.ids.map((id, i) => (i % time === time - 1 ? (id + 1) % config.vocabSize : id)) });
    after.run();
    for (let i = 0; i < batch * time; i++) {
      if (i % time === time - 1) expect(after.logProbs[i]).not.toBe(before.logProbs[i]);
      else expect(after.logProbs[i]).toBe(before.logProbs[i]);
    }
    before.dispose();
    after.dispose();
  }
});

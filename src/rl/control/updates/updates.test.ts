// Updates: laws that hold whatever the numbers. Whole updates of Stable-Baselines3 are golden (test/golden/rl/control).
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type PolicyConfig, type PolicyHead, policyConfig } from "../../../models/policy/config.ts";
import { createPolicy, type Policy } from "../../../models/policy/parameters.ts";
import { dot } from "../../../optim/conjugate-gradient.ts";
import type { Backend } from "../../../runtime/backend.ts";
import { openBackend } from "../../../runtime/open.ts";
import { Random } from "../../../runtime/rng.ts";
import type { SampleBatch } from "../buffer.ts";
import { normaliseAdvantages } from "../estimators.ts";
import { nextKlCoefficient } from "./algorithm.ts";
import { inOrder, runEpochs } from "./epochs.ts";
import { GradientStep } from "./gradient-step.ts";
import { type TrustRegionOptions, trustRegionStep } from "./trust-region.ts";
import { TrustRegionPrograms } from "./trust-region-programs.ts";

let backend: Backend;
beforeAll(() => {
  backend = openBackend({ threads: 1 }).backend;
});
afterAll(() => backend.dispose());

const sizes = { observationSize: 3, rows: 24 };
const heads: Record<string, PolicyHead> = {
  categorical: { kind: "categorical", n: 3 },
  gaussian: { kind: "gaussian", size: 2, squash: false },
  gsde: { kind: "gsde", size: 2, squash: false, fullStd: true, useExpln: false, learnFeatures: false },
  bernoulli: { kind: "bernoulli", n: 2 },
};

const configOf = (head: PolicyHead, options: Parameters<typeof policyConfig>[2] = {}): PolicyConfig =>
  policyConfig(sizes.observationSize, head, { hidden: [6], ...options }, "f64");

function batchFor(head: PolicyHead, seed: number, rows = sizes.rows): SampleBatch & { advantages: Float64Array } {
  const random = new Random(seed, { stream: "batch" });
  const normals = (n: number): Float64Array => Float64Array.from({ length: n }, () => random.normal());
  const width = "size" in head ? head.size : head.kind === "bernoulli" ? head.n : 1;
  const actions = Float64Array.from({ length: rows * width }, () =>
    head.kind === "categorical" ? random.integer(head.n) : head.kind === "bernoulli" ? random.integer(2) : random.normal(),
  );
  return {
    size: rows,
    observations: normals(rows * sizes.observationSize),
    actions,
    logProbs: normals(rows).map((x) => -1 - Math.abs(x) / 4),
    values: normals(rows),
    advantages: normals(rows),
    returns: normals(rows),
  };
}

const usual: TrustRegionOptions = {
  targetKl: 0.01,
  cgMaxSteps: 10,
  cgDamping: 0.1,
  cgResidualTolerance: 1e-10,
  lineSearch: true,
  lineSearchMaxIterations: 10,
  lineSearchShrinkingFactor: 0.8,
  minImprovementRatio: 0,
};

function programsFor(policy: Policy, options: Partial<ConstructorParameters<typeof TrustRegionPrograms>[2]> = {}): TrustRegionPrograms {
  return new TrustRegionPrograms(backend, policy, {
    rows: sizes.rows,
    direction: "new-old",
    reduction: "sum",
    fisher: "gauss-newton",
    masked: false,
    ...options,
  });
}

describe("trust region", () => {
  test.each(Object.keys(heads))("%s: Gauss–Newton products are those of the KL's Hessian, in both directions and reductions", (name) => {
    const policy = createPolicy(configOf(heads[name], { logStdInit: -0.3 }), 3);
    const batch = batchFor(heads[name], 1);
    const order = inOrder(sizes.rows);
    const v = new Float64Array(programsFor(policy).numParameters).map((_, i) => Math.sin(i + 1));
    for (const reduction of ["sum", "mean"] as const) {
      const products = (["gauss-newton", "kl-hessian", "kl-hessian"] as const).map((fisher, i) => {
        const programs = programsFor(policy, { fisher, reduction, direction: i === 2 ? "old-new" : "new-old" });
        programs.prepare(batch, order, batch.advantages);
        const out = new Float64Array(v.length);
        programs.fisherProduct(v, out);
        programs.dispose();
        return out;
      });
      const largest = Math.max(...products[0].map(Math.abs));
      expect(largest).toBeGreaterThan(1e-6);
      for (const other of products.slice(1))
        for (const [i, value] of products[0].entries()) expect(Math.abs(value - other[i])).toBeLessThan(1e-9 * largest);
    }
  });

  test("the Fisher matrix is symmetric and not negative, and sub-sampled products are those of the rows used", () => {
    const policy = createPolicy(configOf(heads.categorical), 5);
    const batch = batchFor(heads.categorical, 2);
    const programs = programsFor(policy, { fisherRows: 6 });
    programs.prepare(batch, inOrder(sizes.rows), batch.advantages);
    const few = programsFor(policy, { rows: 6 });
    few.prepare(
      batch,
      Uint32Array.from({ length: 6 }, (_, i) => 4 * i),
      batch.advantages.slice(0, 6),
    );
    const random = new Random(8);
    const draw = (): Float64Array => Float64Array.from({ length: programs.numParameters }, () => random.normal());
    const [a, b, ha, hb, other] = [draw(), draw(), draw(), draw(), draw()];
    programs.fisherProduct(a, ha);
    programs.fisherProduct(b, hb);
    few.fisherProduct(a, other);
    expect(dot(a, hb)).toBeCloseTo(dot(b, ha), 9);
    expect(dot(a, ha)).toBeGreaterThanOrEqual(0);
    for (const [i, value] of ha.entries()) expect(other[i]).toBeCloseTo(value, 10);
    programs.dispose();
    few.dispose();
  });

  test("no accepted step is above the KL bound or worse than before; a refused one leaves the policy as it was", () => {
    const policy = createPolicy(configOf(heads.gaussian), 1);
    const programs = programsFor(policy);
    const data = policy.parameters.buffer.data as Float64Array;
    const start = data.slice();
    let [numAccepted, numRefused] = [0, 0];
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 1e6 }),
        fc.double({ min: 1e-4, max: 2, noNaN: true }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.integer({ min: 1, max: 4 }),
        (seed, targetKl, cgDamping, lineSearchMaxIterations) => {
          data.set(start);
          const batch = batchFor(heads.gaussian, seed);
          const prepared = programs.prepare(batch, inOrder(sizes.rows), normaliseAdvantages(batch.advantages));
          const step = trustRegionStep(programs, prepared, { ...usual, targetKl, cgDamping, lineSearchMaxIterations });
          if (step.accepted) {
            numAccepted++;
            expect(step.kl).toBeLessThan(targetKl);
            expect(step.surrogate).toBeGreaterThan(step.surrogateBefore);
            // What was told is what the parameters now are.
            const now = programs.try(new Float64Array(programs.numParameters));
            expect(now.kl).toBeCloseTo(step.kl, 12);
          } else {
            numRefused++;
            expect(data).toEqual(start);
          }
        },
      ),
      { numRuns: 60 },
    );
    expect(numAccepted).toBeGreaterThan(5);
    expect(numRefused).toBeGreaterThan(0);
    programs.dispose();
  });

  test("without a gradient, and with one that is not finite, the policy stays", () => {
    const policy = createPolicy(configOf(heads.categorical), 1);
    const programs = programsFor(policy);
    const start = (policy.parameters.buffer.data as Float64Array).slice();
    const batch = batchFor(heads.categorical, 1);
    for (const value of [0, Number.NaN]) {
      const prepared = programs.prepare(batch, inOrder(sizes.rows), new Float64Array(sizes.rows).fill(value));
      expect(trustRegionStep(programs, prepared, usual).accepted).toBe(false);
      expect(trustRegionStep(programs, prepared, { ...usual, lineSearch: false }).accepted).toBe(false);
      expect(policy.parameters.buffer.data).toEqual(start);
    }
    programs.dispose();
  });

  test("a share of the promised improvement may be asked for", () => {
    const policy = createPolicy(configOf(heads.categorical), 1);
    const programs = programsFor(policy);
    const batch = batchFor(heads.categorical, 4);
    const prepared = programs.prepare(batch, inOrder(sizes.rows), normaliseAdvantages(batch.advantages));
    expect(trustRegionStep(programs, prepared, { ...usual, minImprovementRatio: 50 }).accepted).toBe(false);
    expect(trustRegionStep(programs, prepared, { ...usual, minImprovementRatio: 0.1 }).accepted).toBe(true);
    programs.dispose();
  });
});

describe("gradient step", () => {
  const adam = { kind: "adam", learningRate: 1e-3 } as const;

  test("a batch that is not finite changes nothing and is told", () => {
    const policy = createPolicy(configOf(heads.gaussian), 1);
    const step = new GradientStep(backend, policy, { part: "both", optimizer: adam, entropy: true });
    const batch = batchFor(heads.gaussian, 1);
    const order = inOrder(batch.size);
    const numbers = { learningRate: 1e-3, clipRange: 0.2 };
    runEpochs(step, batch, { epochs: 1, batchSize: 8, numbers, orderOf: () => order });
    const before = (policy.parameters.buffer.data as Float64Array).slice();
    const moments = (step.state.firstMoment.data as Float64Array).slice();
    const broken = { ...batch, returns: Float64Array.from(batch.returns, (x, i) => (i === 3 ? Number.NaN : x)) };
    const means = runEpochs(step, broken, { epochs: 3, batchSize: 8, numbers, orderOf: () => order });
    expect(means.isMade).toBe(false);
    expect(means.steps).toBe(0);
    expect(means.gradientNorm).toBeNaN();
    expect(policy.parameters.buffer.data).toEqual(before);
    expect(step.state.firstMoment.data).toEqual(moments);
    step.dispose();
  });

  test("the actor's step leaves the critic, the critic's the actor, with a shared trunk too", () => {
    for (const trunk of [[], [5]]) {
      const policy = createPolicy(configOf(heads.categorical, { trunk }), 1);
      const batch = batchFor(heads.categorical, 1);
      const options = { epochs: 1, batchSize: 24, numbers: { learningRate: 0.01, clipRange: 0.2 }, orderOf: () => inOrder(24) };
      const snapshot = (): Map<string, Float64Array> =>
        new Map([...policy.parameters.leaves].map(([path, { data }]) => [path, (data as Float64Array).slice()]));
      for (const part of ["actor", "critic"] as const) {
        const before = snapshot();
        const step = new GradientStep(backend, policy, { part, optimizer: adam });
        runEpochs(step, batch, options);
        step.dispose();
        const changed = [...snapshot()].filter(([path, now]) => now.some((x, i) => x !== before.get(path)?.[i])).map(([path]) => path);
        expect(changed.length).toBeGreaterThan(3);
        expect(changed.filter((path) => !path.startsWith(part))).toEqual([]);
      }
    }
  });

  test("a KL penalty holds the policy back: the larger its coefficient, the nearer it stays", () => {
    const kls = [0, 1, 30].map((klCoefficient) => {
      const policy = createPolicy(configOf(heads.categorical), 1);
      const programs = programsFor(policy, { direction: "old-new" });
      const batch = batchFor(heads.categorical, 1);
      programs.prepare(batch, inOrder(24), batch.advantages);
      const step = new GradientStep(backend, policy, {
        part: "both",
        optimizer: { kind: "adam" },
        clip: { kind: "none" },
        klPenalty: true,
      });
      let told = 0;
      runEpochs(step, batch, {
        epochs: 30,
        batchSize: 24,
        numbers: { learningRate: 0.01, klCoefficient },
        orderOf: () => inOrder(24),
        oldParameters: programs.oldParameters,
        onStep: ({ kl }) => {
          told = kl;
        },
      });
      const { kl } = programs.try(new Float64Array(programs.numParameters));
      // The last step was taken after it was told.
      expect(Math.abs(kl - told)).toBeLessThan(0.2 * kl + 1e-3);
      step.dispose();
      programs.dispose();
      return kl;
    });
    expect(kls[1]).toBeLessThan(kls[0]);
    expect(kls[2]).toBeLessThan(kls[1]);
  });

  test("the coefficient of the penalty is halved, kept or doubled by what the KL came to", () => {
    expect([0.005, 0.01, 0.02].map((kl) => nextKlCoefficient(1, kl, 0.01))).toEqual([0.5, 1, 2]);
  });

  test("float32 and float64 take the same step up to rounding", () => {
    const results = (["f32", "f64"] as const).map((dtype) => {
      const policy = createPolicy({ ...configOf(heads.gaussian), dtype }, 9);
      const step = new GradientStep(backend, policy, { part: "both", optimizer: adam, maxGradNorm: 0.5, entropy: true });
      const batch = batchFor(heads.gaussian, 2);
      runEpochs(step, batch, {
        epochs: 3,
        batchSize: 10,
        numbers: { learningRate: 1e-3, clipRange: 0.2, entropyCoefficient: 0.01 },
        orderOf: () => inOrder(24),
      });
      step.dispose();
      // Padding differs between the two.
      return [...policy.parameters.leaves.values()].flatMap(({ data }) => Array.from(data as Float32Array));
    });
    for (const [i, value] of results[1].entries()) expect(Math.abs(results[0][i] - value)).toBeLessThan(1e-4);
  });
});

// A Fisher-vector product of TRPO (Schulman et al. 2015, appendix C): the Hessian of the KL at the old policy times a vector. There it
// equals the Gauss–Newton product Jᵀ M J v, which is one forward and one reverse derivative; the peer differentiates the KL twice.
import { bufferFrom } from "../src/runtime/buffer.ts";
import { openBackend } from "../src/runtime/open.ts";
import { compile, spec } from "../src/runtime/program.ts";
import { broadcastTo } from "../src/tensor/core.ts";
import { exp, mul, tanh } from "../src/tensor/elementwise.ts";
import { jvp, vjp } from "../src/tensor/gradient.ts";
import type { Tensor } from "../src/tensor/graph.ts";
import { linear } from "../src/tensor/matmul.ts";
import { flatten, mapTree } from "../src/tensor/tree.ts";
import { type Benchmark, type Case, type Context, meanMs } from "./harness/benchmark.ts";

const widths = [17, 64, 64, 6];
const repeats = 100;

export const fisherVectorProduct: Benchmark = {
  name: "fisher-vector-product",
  summary: "tanh MLP 17-64-64-6 with a diagonal Gaussian, batches of 1,000 and 2,048",
  peer: "torch and numpy",
  seconds: 20,
  prepare,
};

interface Policy<T> {
  layers: { weight: T; bias: T }[];
  logStd: T;
}

const value = (i: number, scale: number): number => Math.fround(Math.sin(i * 12.9898 + 1) * scale);
const values = (shape: readonly number[], seed: number, scale: number) => {
  const length = shape.reduce((a, b) => a * b, 1);
  return bufferFrom(
    "f32",
    shape,
    Float32Array.from({ length }, (_, i) => value(i + 1000 * seed, scale)),
  );
};

const shapes: Policy<readonly number[]> = {
  layers: widths.slice(1).map((out, i) => ({ weight: [out, widths[i]], bias: [out] })),
  logStd: [6],
};
const specs = {
  layers: shapes.layers.map(({ weight, bias }) => ({ weight: spec("f32", weight), bias: spec("f32", bias) })),
  logStd: spec("f32", shapes.logStd),
};

const mean = (x: Tensor, { layers }: Policy<Tensor>): Tensor =>
  layers.reduce((hidden, { weight, bias }, i) => {
    const y = linear(hidden, weight, bias);
    return i < layers.length - 1 ? tanh(y) : y;
  }, x);

/** Jᵀ M J v: M is diag(1/σ²)/B for the mean of each sample, and 2 for each log σ. */
function product(policy: Policy<Tensor>, observations: Tensor, vector: Policy<Tensor>, batch: number): Policy<Tensor> {
  const mu = mean(observations, policy);
  const [alongMean] = jvp([mu], policy, vector as never);
  const precision = broadcastTo(exp(mul(policy.logStd, -2)), mu.shape);
  const { layers } = vjp([mu], [mul(mul(alongMean, precision), 1 / batch)], policy);
  return { layers: layers as Policy<Tensor>["layers"], logStd: mul(vector.logStd, 2) };
}

async function prepare(context: Context): Promise<Case[]> {
  const { backend } = openBackend({ threads: context.threads });
  context.defer(() => backend.dispose());
  const peer = context.peers?.("fisher_vector_product.py");
  const cases: Case[] = [];
  for (const batch of [1000, 2048]) {
    const program = compile(
      backend,
      ({ policy, observations, vector }) => ({ product: product(policy as never, observations, vector as never, batch) }),
      { policy: specs, observations: spec("f32", [batch, widths[0]]), vector: specs },
      { name: "Fisher-vector product" },
    );
    let seed = 0;
    const fill = (scale: number) => mapTree(specs, ({ shape }) => values(shape as number[], seed++, scale));
    const inputs = { policy: fill(0.15), observations: values([batch, widths[0]], 99, 1), vector: fill(0.1) };
    const bound = program.bind(inputs as never);
    bound.run();
    const facts = [`${program.nodeCount} ONNX nodes`];
    const entry: Case = {
      name: `batch ${batch}`,
      unit: "ms",
      contenders: [{ name: "longwave, Gauss-Newton", side: "ours", sample: () => meanMs(repeats, () => bound.run()) }],
      facts: () => facts,
    };
    if (peer) {
      const numbers = (tree: unknown) => flatten(tree as never).flatMap(([, leaf]) => Array.from((leaf as { data: Float32Array }).data));
      const theirs = await peer.call<number[]>("load", {
        batch,
        widths,
        policy: numbers(inputs.policy),
        observations: numbers(inputs.observations),
        vector: numbers(inputs.vector),
      });
      const ours = numbers(bound.outputs);
      const scale = Math.max(...theirs.map(Math.abs));
      const difference = Math.max(...theirs.map((x, i) => Math.abs(x - ours[i]))) / scale;
      facts.push(`largest difference from PyTorch's product: ${difference.toExponential(0)} of its largest entry`);
      entry.contenders.push({
        name: "PyTorch, double backward",
        side: "peer",
        note: "of the KL, on a kept graph of its gradient",
        sample: () => peer.call<number>("sample", { batch, repeats }),
      });
    }
    cases.push(entry);
  }
  return cases;
}

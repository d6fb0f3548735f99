// Second derivatives: a gradient is part of the graph, so it can be differentiated like anything else. Newton's method for logistic
// regression, whose Hessian is known: Xᵀ diag(p (1 − p)) X / N + λ. The engine never forms it: it multiplies it by a vector, in two ways,
// and conjugate gradients (Hestenes & Stiefel 1952) solve H d = g with such products alone.
import { pathToFileURL } from "node:url";
import { allocate, compile, openBackend, Random, spec, type TensorBuffer } from "longwave/runtime";
import { add, gradients, jvp, matmul, mean, mul, softplus, sub, sum, type Tensor } from "longwave/tensor";

type Vector = TensorBuffer<"f64">;
const decay = 1e-3;

export function main({ samples = 400, features = 12, iterations = 8, print = console.log } = {}) {
  const random = new Random(1);
  const x = allocate("f64", [samples, features]);
  const y = allocate("f64", [samples, 1]);
  for (let i = 0; i < x.data.length; i++) x.data[i] = random.normal();
  const truth = Array.from({ length: features }, () => random.normal());
  for (let i = 0; i < samples; i++) {
    const logit = truth.reduce((total, weight, j) => total + weight * x.data[i * features + j], 0);
    y.data[i] = random.uniform() < 1 / (1 + Math.exp(-logit)) ? 1 : 0;
  }

  // −log p(y | x) = softplus(z) − y z, and the two products. H v is the derivative of ⟨∇loss, v⟩ (reverse over reverse), and the change of
  // the gradient when w moves along v (forward over reverse).
  const weights = spec("f64", [features, 1]);
  const trace = ({ w, v, x, y }: Record<"w" | "v" | "x" | "y", Tensor>) => {
    const z = matmul(x, w);
    const loss = add(mean(sub(softplus(z), mul(y, z))), mul(sum(mul(w, w)), decay / 2));
    const gradient = gradients(loss, w);
    return { loss, gradient, reverse: gradients(sum(mul(gradient, v)), w), forward: jvp([gradient], w, v)[0] };
  };
  using backend = openBackend({ threads: 1 }).backend;
  using program = compile(backend, trace, { w: weights, v: weights, x: spec("f64", [samples, features]), y: spec("f64", [samples, 1]) });

  const vector = (): Vector => allocate("f64", [features, 1]);
  const [w, v, gradient, reverse, forward] = [vector(), vector(), vector(), vector(), vector()];
  const loss = allocate("f64", []);
  const call = program.bind({ w, v, x, y }, { loss, gradient, reverse, forward });
  const hessianTimes = (direction: Float64Array): Float64Array => {
    v.data.set(direction);
    call.run();
    return Float64Array.from(reverse.data);
  };

  // Both products against the formula, at w = 0 where every p is 1/2.
  const direction = Float64Array.from({ length: features }, () => random.normal());
  hessianTimes(direction);
  const analytic = analyticProduct(x, direction, 0.25);
  const error = Math.max(
    ...Array.from(analytic, (value, i) => Math.max(Math.abs(reverse.data[i] - value), Math.abs(forward.data[i] - value))),
  );
  print(`H v: largest difference from the formula ${error.toExponential(1)}`);

  const gradientNorms: number[] = [];
  for (let i = 0; i < iterations; i++) {
    call.run();
    gradientNorms.push(norm(gradient.data));
    print(`Newton step ${i}: loss ${loss.data[0].toFixed(8)}, gradient norm ${gradientNorms[i].toExponential(1)}`);
    const step = conjugateGradients(hessianTimes, Float64Array.from(gradient.data));
    for (let j = 0; j < features; j++) w.data[j] -= step[j];
  }
  return { error, gradientNorms, loss: loss.data[0] };
}

/** Xᵀ s X v / N + λ v, where every p (1 − p) is s. */
function analyticProduct({ data, shape: [samples, features] }: Vector, v: Float64Array, s: number): Float64Array {
  const product = v.map((value) => decay * value);
  for (let i = 0; i < samples; i++) {
    const row = data.subarray(i * features, (i + 1) * features);
    const weight = (s * dot(row, v)) / samples;
    for (let j = 0; j < features; j++) product[j] += weight * row[j];
  }
  return product;
}

/** The d with A d = b, for a positive definite A that is known by its products. */
function conjugateGradients(times: (v: Float64Array) => Float64Array, b: Float64Array): Float64Array {
  const solution = new Float64Array(b.length);
  const residual = Float64Array.from(b);
  let search = Float64Array.from(b);
  let squared = dot(residual, residual);
  for (let i = 0; i < 2 * b.length && squared > 1e-28; i++) {
    const image = times(search);
    const length = squared / dot(search, image);
    for (let j = 0; j < b.length; j++) {
      solution[j] += length * search[j];
      residual[j] -= length * image[j];
    }
    const next = dot(residual, residual);
    search = search.map((value, j) => residual[j] + (next / squared) * value);
    squared = next;
  }
  return solution;
}

const dot = (a: Float64Array, b: Float64Array): number => a.reduce((total, value, i) => total + value * b[i], 0);
const norm = (a: Float64Array): number => Math.sqrt(dot(a, a));

if (import.meta.url === pathToFileURL(process.argv[1]).href) main();

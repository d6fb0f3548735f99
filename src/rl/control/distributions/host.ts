// The same distributions in plain TypeScript, for rollouts: they read the network's outputs for a batch of states and draw one action a
// state, with its log-probability. Numbers come from the counter-based generator, keyed by (seed, stream, step, row, dimension).

import { invariant } from "../../../base/errors.ts";
import { headEpsilon, type PolicyHead } from "../../../models/policy/config.ts";
import { randomNormal, randomUniform } from "../../../runtime/rng.ts";
import { forbiddenLogit } from "./categorical.ts";

type Floats = Float32Array | Float64Array;

/** Network outputs of E states, in memory that a program writes. */
export interface HeadOutputs {
  /** [E, K] */
  readonly outputs: Floats;
  /** [E, L]; gSDE alone. */
  readonly latent?: Floats;
  /** [A], [L, A] or [L, 1]: the live parameters. */
  readonly logStd?: Floats;
  /** [E, K] 0 or 1; discrete actions alone. */
  readonly masks?: Uint8Array;
}

export interface NoiseKey {
  readonly seed: number;
  readonly stream: number;
}

/** Draws and judges actions. Actions of squashed Gaussians are the values before tanh; see {@link ActionTransform}. */
export interface HostDistribution {
  /** Called when the parameters have changed, and before the first draw. */
  refresh(): void;
  /** gSDE draws an exploration matrix for each of the first `rows` states; others do nothing. @param step key of the draw. */
  resetNoise(rows: number, step: number): void;
  /** Writes an action of state `row` to `target` at `offset`; returns its log-probability. @param step key of the draw. */
  sample(row: number, step: number, target: Floats, offset: number): number;
  /** Writes the most probable action. */
  mode(row: number, target: Floats, offset: number): void;
  logProb(row: number, actions: ArrayLike<number>, offset: number): number;
  /** NaN where there is no closed form. */
  entropy(row: number): number;
}

export function hostDistribution(head: PolicyHead, outputs: HeadOutputs, key: NoiseKey): HostDistribution {
  switch (head.kind) {
    case "categorical":
      return new HostCategoricals([head.n], outputs, key);
    case "multi-categorical":
      return new HostCategoricals(head.dims, outputs, key);
    case "bernoulli":
      return new HostBernoulli(head.n, outputs, key);
    case "gaussian":
      return new HostGaussian(head, outputs, key);
    case "gsde":
      return new HostGsde(head, outputs, key);
  }
}

class HostCategoricals implements HostDistribution {
  readonly #dims: readonly number[];
  readonly #total: number;
  readonly #data: HeadOutputs;
  readonly #key: NoiseKey;
  readonly #weights: Float64Array;

  constructor(dims: readonly number[], data: HeadOutputs, key: NoiseKey) {
    this.#dims = dims;
    this.#total = dims.reduce((sum, n) => sum + n, 0);
    this.#data = data;
    this.#key = key;
    this.#weights = new Float64Array(Math.max(...dims));
  }

  refresh(): void {}
  resetNoise(): void {}

  sample(row: number, step: number, target: Floats, offset: number): number {
    let logProb = 0;
    let at = row * this.#total;
    for (let d = 0; d < this.#dims.length; d++) {
      const n = this.#dims[d];
      const total = this.#exponentials(at, n);
      let rest = randomUniform(this.#key.seed, this.#key.stream, step, row, d) * total;
      let chosen = 0;
      // The last action with a weight takes what rounding leaves over.
      for (let i = 0; i < n; i++) {
        if (this.#weights[i] === 0) continue;
        chosen = i;
        rest -= this.#weights[i];
        if (rest < 0) break;
      }
      target[offset + d] = chosen;
      logProb += Math.log(this.#weights[chosen] / total);
      at += n;
    }
    return logProb;
  }

  mode(row: number, target: Floats, offset: number): void {
    let at = row * this.#total;
    for (let d = 0; d < this.#dims.length; d++) {
      let best = 0;
      for (let i = 1; i < this.#dims[d]; i++) if (this.#logit(at + i) > this.#logit(at + best)) best = i;
      target[offset + d] = best;
      at += this.#dims[d];
    }
  }

  logProb(row: number, actions: ArrayLike<number>, offset: number): number {
    let logProb = 0;
    let at = row * this.#total;
    for (let d = 0; d < this.#dims.length; d++) {
      const n = this.#dims[d];
      const largest = this.#largest(at, n);
      let total = 0;
      for (let i = 0; i < n; i++) total += Math.exp(this.#logit(at + i) - largest);
      logProb += this.#logit(at + actions[offset + d]) - largest - Math.log(total);
      at += n;
    }
    return logProb;
  }

  entropy(row: number): number {
    let entropy = 0;
    let at = row * this.#total;
    for (const n of this.#dims) {
      const total = this.#exponentials(at, n);
      for (let i = 0; i < n; i++) {
        const p = this.#weights[i] / total;
        if (p > 0) entropy -= p * Math.log(p);
      }
      at += n;
    }
    return entropy;
  }

  #logit(i: number): number {
    const { outputs, masks } = this.#data;
    return masks && masks[i] === 0 ? forbiddenLogit : outputs[i];
  }

  #largest(at: number, n: number): number {
    let largest = this.#logit(at);
    for (let i = 1; i < n; i++) largest = Math.max(largest, this.#logit(at + i));
    return largest;
  }

  /** e^(logit − largest) of n actions, and their sum. */
  #exponentials(at: number, n: number): number {
    const largest = this.#largest(at, n);
    let total = 0;
    for (let i = 0; i < n; i++) total += this.#weights[i] = Math.exp(this.#logit(at + i) - largest);
    return total;
  }
}

class HostBernoulli implements HostDistribution {
  readonly #n: number;
  readonly #data: HeadOutputs;
  readonly #key: NoiseKey;

  constructor(n: number, data: HeadOutputs, key: NoiseKey) {
    this.#n = n;
    this.#data = data;
    this.#key = key;
  }

  refresh(): void {}
  resetNoise(): void {}

  sample(row: number, step: number, target: Floats, offset: number): number {
    const { outputs } = this.#data;
    for (let i = 0; i < this.#n; i++) {
      const p = 1 / (1 + Math.exp(-outputs[row * this.#n + i]));
      target[offset + i] = randomUniform(this.#key.seed, this.#key.stream, step, row, i) < p ? 1 : 0;
    }
    return this.logProb(row, target, offset);
  }

  mode(row: number, target: Floats, offset: number): void {
    for (let i = 0; i < this.#n; i++) target[offset + i] = this.#data.outputs[row * this.#n + i] > 0 ? 1 : 0;
  }

  logProb(row: number, actions: ArrayLike<number>, offset: number): number {
    let sum = 0;
    for (let i = 0; i < this.#n; i++) {
      const logit = this.#data.outputs[row * this.#n + i];
      sum += actions[offset + i] * logit - softplus(logit);
    }
    return sum;
  }

  entropy(row: number): number {
    let sum = 0;
    for (let i = 0; i < this.#n; i++) {
      const logit = this.#data.outputs[row * this.#n + i];
      sum += softplus(logit) - logit / (1 + Math.exp(-logit));
    }
    return sum;
  }
}

const softplus = (x: number): number => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
const log2Pi = Math.log(2 * Math.PI);

/** Log-density of a squashed action against that of the value before tanh. */
const squashCorrection = (x: number, epsilon: number): number => Math.log(1 - Math.tanh(x) ** 2 + epsilon);

class HostGaussian implements HostDistribution {
  readonly #size: number;
  readonly #squash: boolean;
  readonly #epsilon: number;
  readonly #data: HeadOutputs;
  readonly #key: NoiseKey;
  readonly #std: Float64Array;
  #logStdSum = 0;

  constructor({ size, squash, epsilon = headEpsilon }: Extract<PolicyHead, { kind: "gaussian" }>, data: HeadOutputs, key: NoiseKey) {
    invariant(data.logStd, "a Gaussian without a log std");
    this.#size = size;
    this.#squash = squash;
    this.#epsilon = epsilon;
    this.#data = data;
    this.#key = key;
    this.#std = new Float64Array(size);
  }

  refresh(): void {
    const logStd = this.#data.logStd as Floats;
    this.#logStdSum = 0;
    for (let a = 0; a < this.#size; a++) {
      this.#std[a] = Math.exp(logStd[a]);
      this.#logStdSum += logStd[a];
    }
  }

  resetNoise(): void {}

  sample(row: number, step: number, target: Floats, offset: number): number {
    const { outputs } = this.#data;
    for (let a = 0; a < this.#size; a++)
      target[offset + a] = outputs[row * this.#size + a] + this.#std[a] * randomNormal(this.#key.seed, this.#key.stream, step, row, a);
    return this.logProb(row, target, offset);
  }

  mode(row: number, target: Floats, offset: number): void {
    for (let a = 0; a < this.#size; a++) target[offset + a] = this.#data.outputs[row * this.#size + a];
  }

  logProb(row: number, actions: ArrayLike<number>, offset: number): number {
    let sum = 0;
    for (let a = 0; a < this.#size; a++) {
      const z = (actions[offset + a] - this.#data.outputs[row * this.#size + a]) / this.#std[a];
      sum += 0.5 * (z * z + log2Pi);
      if (this.#squash) sum += squashCorrection(actions[offset + a], this.#epsilon);
    }
    return -sum - this.#logStdSum;
  }

  entropy(): number {
    return this.#squash ? Number.NaN : this.#logStdSum + this.#size * 0.5 * (1 + log2Pi);
  }
}

class HostGsde implements HostDistribution {
  readonly #head: Extract<PolicyHead, { kind: "gsde" }>;
  readonly #data: HeadOutputs;
  readonly #key: NoiseKey;
  readonly #numFeatures: number;
  readonly #epsilon: number;
  /** [L, A] */
  readonly #std: Float64Array;
  /** [rows, L, A] */
  #noise = new Float64Array(0);

  constructor(head: Extract<PolicyHead, { kind: "gsde" }>, data: HeadOutputs, key: NoiseKey) {
    invariant(data.logStd && data.latent, "gSDE without log std or features");
    this.#head = head;
    this.#epsilon = head.epsilon ?? headEpsilon;
    this.#data = data;
    this.#key = key;
    this.#numFeatures = data.logStd.length / (head.fullStd ? head.size : 1);
    this.#std = new Float64Array(this.#numFeatures * head.size);
  }

  refresh(): void {
    const { size, fullStd, useExpln } = this.#head;
    const logStd = this.#data.logStd as Floats;
    for (let l = 0; l < this.#numFeatures; l++)
      for (let a = 0; a < size; a++) {
        const value = logStd[fullStd ? l * size + a : l];
        this.#std[l * size + a] = useExpln && value > 0 ? Math.log(value + 1 + this.#epsilon) + 1 : Math.exp(value);
      }
  }

  resetNoise(rows: number, step: number): void {
    const perRow = this.#std.length;
    if (this.#noise.length < rows * perRow) this.#noise = new Float64Array(rows * perRow);
    for (let row = 0; row < rows; row++)
      for (let i = 0; i < perRow; i++)
        this.#noise[row * perRow + i] = this.#std[i] * randomNormal(this.#key.seed, this.#key.stream, step, row, i);
  }

  /** Exploration matrices [rows, L, A], for a checkpoint and for tests. */
  get noise(): Float64Array {
    return this.#noise;
  }

  setNoise(noise: ArrayLike<number>): void {
    this.#noise = Float64Array.from(noise);
  }

  sample(row: number, _step: number, target: Floats, offset: number): number {
    const { size } = this.#head;
    const perRow = this.#std.length;
    const latent = this.#data.latent as Floats;
    for (let a = 0; a < size; a++) {
      let noise = 0;
      for (let l = 0; l < this.#numFeatures; l++) noise += latent[row * this.#numFeatures + l] * this.#noise[row * perRow + l * size + a];
      target[offset + a] = this.#data.outputs[row * size + a] + noise;
    }
    return this.logProb(row, target, offset);
  }

  mode(row: number, target: Floats, offset: number): void {
    const { size } = this.#head;
    for (let a = 0; a < size; a++) target[offset + a] = this.#data.outputs[row * size + a];
  }

  logProb(row: number, actions: ArrayLike<number>, offset: number): number {
    const { size, squash } = this.#head;
    let sum = 0;
    for (let a = 0; a < size; a++) {
      const variance = this.#variance(row, a);
      sum += 0.5 * ((actions[offset + a] - this.#data.outputs[row * size + a]) ** 2 / variance + Math.log(variance) + log2Pi);
      if (squash) sum += squashCorrection(actions[offset + a], this.#epsilon);
    }
    return -sum;
  }

  entropy(row: number): number {
    if (this.#head.squash) return Number.NaN;
    let sum = 0;
    for (let a = 0; a < this.#head.size; a++) sum += 0.5 * (1 + log2Pi + Math.log(this.#variance(row, a)));
    return sum;
  }

  #variance(row: number, a: number): number {
    const latent = this.#data.latent as Floats;
    let sum = this.#epsilon;
    for (let l = 0; l < this.#numFeatures; l++) sum += (latent[row * this.#numFeatures + l] * this.#std[l * this.#head.size + a]) ** 2;
    return sum;
  }
}

// A trainable without tensors for the tests of the engine: SGD with momentum on a noisy quadratic, float64, data in shuffled order.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { AbortedError, FormatError } from "../../base/errors.ts";
import { randomUniform, streamId } from "../../runtime/rng.ts";
import type { StepResult, Trainable } from "../trainable.ts";

export interface ToyOptions {
  seed?: number;
  /** Milliseconds that a step keeps the processor busy. Default 0. */
  busyMs?: number;
  /** Bytes of a second, meaningless file, so that saving takes a while. Default 0. */
  ballast?: number;
  /** Called in place of a normal step's result, for faults. */
  tamper?: (index: number, result: StepResult) => StepResult;
  /** From this step on a step never ends, until the signal lets it be given up. */
  hang?: { from: number; signal: AbortSignal };
  /** Evaluation losses in place of the true one. */
  losses?: readonly number[];
}

const width = 16;

/** Keeps the process alive, as work would. */
function givenUp(signal: AbortSignal): Promise<never> {
  const alive = setInterval(() => {}, 1000);
  return new Promise((_, reject) => {
    signal.addEventListener("abort", () => {
      clearInterval(alive);
      reject(new AbortedError("step: given up", { cause: signal.reason }));
    });
  });
}

export class ToyTrainable implements Trainable {
  readonly weights = new Float64Array(width).fill(1);
  readonly momentum = new Float64Array(width);
  position = 0;
  evaluations = 0;
  readonly options: ToyOptions;

  constructor(options: ToyOptions = {}) {
    this.options = options;
  }

  step(index: number): StepResult | Promise<StepResult> {
    const { seed = 1, busyMs = 0, tamper, hang } = this.options;
    if (hang && index >= hang.from) return givenUp(hang.signal);
    const until = performance.now() + busyMs;
    let loss = 0;
    let squares = 0;
    for (let i = 0; i < width; i++) {
      const noise = randomUniform(seed, streamId("data"), this.position, i, 0) - 0.5;
      const gradient = this.weights[i] - noise;
      loss += gradient ** 2 / 2;
      squares += gradient ** 2;
      this.momentum[i] = 0.9 * this.momentum[i] + gradient;
      this.weights[i] -= (0.05 / (1 + index / 50)) * this.momentum[i];
    }
    this.position = (this.position * 5 + 3) % 1009;
    while (performance.now() < until);
    const result = { metrics: { loss, gradientNorm: Math.sqrt(squares) }, tokens: 10 + (index % 3) };
    return tamper ? tamper(index, result) : result;
  }

  evaluate(): { loss: number; norm: number } {
    const norm = Math.hypot(...this.weights);
    const loss = this.options.losses?.[this.evaluations] ?? norm;
    this.evaluations++;
    return { loss, norm };
  }

  sample(): string {
    return `w0 = ${this.weights[0]}`;
  }

  state(): { position: number; evaluations: number } {
    return { position: this.position, evaluations: this.evaluations };
  }

  save(directory: string): void {
    writeFileSync(join(directory, "model.bin"), new Uint8Array(this.weights.buffer));
    writeFileSync(join(directory, "optimiser.bin"), new Uint8Array(this.momentum.buffer));
    if (this.options.ballast) writeFileSync(join(directory, "ballast.bin"), new Uint8Array(this.options.ballast));
  }

  restore(directory: string, state: { position?: number; evaluations?: number }): void {
    for (const [name, target] of [
      ["model.bin", this.weights],
      ["optimiser.bin", this.momentum],
    ] as const) {
      const bytes = readFileSync(join(directory, name));
      if (bytes.length !== width * 8) throw new FormatError(`${name}: expected ${width * 8} bytes, got ${bytes.length}`);
      new Uint8Array(target.buffer).set(bytes);
      if (target.some(Number.isNaN)) throw new FormatError(`${name}: expected numbers, got NaN`);
    }
    this.position = state.position ?? 0;
    this.evaluations = state.evaluations ?? 0;
  }

  dump(directory: string): void {
    writeFileSync(join(directory, "weights.txt"), this.weights.join("\n"));
  }
}

// The one mechanism behind every elementwise optimiser: the formula of an UpdateRule, between what all of them share
// (clipping factor, sign, weight decay, groups), as one program in place over parameters, gradients and state.
import type { Backend } from "../runtime/backend.ts";
import { allocate, type TensorBuffer, viewOf } from "../runtime/buffer.ts";
import type { FlatBuffer } from "../runtime/flat.ts";
import { add, mul, sub } from "../tensor/elementwise.ts";
import { ChunkedProgram, type ChunkedRange } from "./chunks.ts";
import type { GroupSettings } from "./groups.ts";
import type { UpdateRule } from "./update-rule.ts";

/** Numbers of one step, checked. */
export interface StepSettings {
  /** 1 for the first. */
  readonly step: number;
  readonly learningRate: number;
  readonly gradientScale: number;
}

/** A part of an optimiser: some elements of the flat buffers, their state, and how a step changes both. */
export interface Update extends Disposable {
  readonly state: Readonly<Record<string, TensorBuffer>>;
  run(settings: StepSettings): void;
  dispose(): void;
}

/** Elements [start, end) of the flat buffers. */
export interface Span {
  readonly start: number;
  readonly end: number;
  readonly settings: GroupSettings;
}

export interface ElementwiseUpdateOptions {
  readonly rule: UpdateRule;
  readonly parameters: FlatBuffer<unknown>;
  readonly gradients: FlatBuffer<unknown>;
  readonly spans: readonly Span[];
  readonly maximize: boolean;
}

export class ElementwiseUpdate implements Update {
  /** One buffer for each state of the rule: the spans one after another. */
  readonly state: Readonly<Record<string, TensorBuffer>>;
  readonly #options: ElementwiseUpdateOptions;
  readonly #programs: readonly ChunkedProgram[];
  /** Numbers of a step, as the programs read them; one set for each group. */
  readonly #scalars = new Map<GroupSettings, Record<string, TensorBuffer>>();

  constructor(backend: Backend, name: string, options: ElementwiseUpdateOptions) {
    const { rule, spans, parameters, gradients } = options;
    this.#options = options;
    const { dtype } = parameters.layout;
    const length = spans.reduce((sum, { start, end }) => sum + end - start, 0);
    this.state = Object.fromEntries(
      Object.entries(rule.state).map(([key, initial]) => {
        const buffer = allocate(dtype, [length]);
        if (initial !== 0) (buffer.data as Float64Array).fill(initial);
        return [key, buffer];
      }),
    );
    const names = ["gradientScale", "weightDecay", ...Object.keys(rule.scalars(1, 0))];
    const decayed: ChunkedRange[] = [];
    const plain: ChunkedRange[] = [];
    let stateStart = 0;
    for (const { start, end, settings } of spans) {
      const size = [end - start];
      let scalars = this.#scalars.get(settings);
      if (!scalars) this.#scalars.set(settings, (scalars = Object.fromEntries(names.map((key) => [key, allocate(dtype, [])]))));
      const buffers: Record<string, TensorBuffer> = {
        parameters: viewOf(parameters.buffer, size, start),
        gradients: viewOf(gradients.buffer, size, start),
      };
      for (const [key, buffer] of Object.entries(this.state)) buffers[stateKey(key)] = viewOf(buffer, size, stateStart);
      (settings.weightDecay === 0 ? plain : decayed).push({ buffers, scalars });
      stateStart += end - start;
    }
    this.#programs = [
      new ChunkedProgram(backend, `${name} with weight decay`, bodyOf(rule, true), decayed),
      new ChunkedProgram(backend, name, bodyOf(rule, false), plain),
    ];
  }

  /** Passes over the parameters that one step makes: with and without weight decay, 0 where no group needs it. */
  get nodeCounts(): { withWeightDecay: number; without: number } {
    return { withWeightDecay: this.#programs[0].nodeCount, without: this.#programs[1].nodeCount };
  }

  run({ step, learningRate, gradientScale }: StepSettings): void {
    const { rule, maximize } = this.#options;
    for (const [settings, buffers] of this.#scalars) {
      const rate = learningRate * settings.learningRateScale;
      write(buffers.gradientScale, maximize ? -gradientScale : gradientScale);
      write(buffers.weightDecay, rule.weightDecay === "parameter" ? 1 - rate * settings.weightDecay : settings.weightDecay);
      const scalars = rule.scalars(step, rate);
      for (const key in scalars) write(buffers[key], scalars[key]);
    }
    for (const program of this.#programs) program.run();
  }

  dispose(): void {
    for (const program of this.#programs) program.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** States and the buffers of every optimiser share one tree. */
const stateKey = (name: string): string => `state_${name}`;

function bodyOf(rule: UpdateRule, decays: boolean): ConstructorParameters<typeof ChunkedProgram>[2] {
  return ({ parameters, gradients, ...values }, scalars) => {
    let gradient = mul(gradients, scalars.gradientScale);
    if (decays && rule.weightDecay === "gradient") gradient = add(gradient, mul(parameters, scalars.weightDecay));
    const state = Object.fromEntries(Object.keys(rule.state).map((key) => [key, values[stateKey(key)]]));
    const { delta, state: next } = rule.update(gradient, state, scalars);
    const kept = decays && rule.weightDecay === "parameter" ? mul(parameters, scalars.weightDecay) : parameters;
    return { parameters: sub(kept, delta), ...Object.fromEntries(Object.entries(next).map(([key, value]) => [stateKey(key), value])) };
  };
}

/** Sets a rank-0 buffer. */
export function write(buffer: TensorBuffer, value: number): void {
  (buffer.data as Float64Array)[0] = value;
}

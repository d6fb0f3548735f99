// Worlds that are a table: for each state and action a list of outcomes. Plain enough to plan over (value iteration), fast enough to step.
import { invariant } from "../../../base/errors.ts";
import type { JsonRecord } from "../../../engine/events.ts";
import { Discrete, type DiscreteSpace } from "../spaces.ts";
import { NativeEnvironment, savedInteger } from "./native-environment.ts";

export interface Outcome {
  readonly probability: number;
  readonly nextState: number;
  readonly reward: number;
  readonly terminated: boolean;
}

/** `outcomes[state][action]`. */
export type TransitionTable = readonly (readonly (readonly Outcome[])[])[];

/** The first index whose cumulative probability exceeds `uniform`; the last one when rounding leaves none. */
export function sampleIndex(probabilities: ArrayLike<number>, uniform: number): number {
  let sum = 0;
  for (let i = 0; i < probabilities.length; i++) {
    sum += probabilities[i];
    if (sum > uniform) return i;
  }
  return probabilities.length - 1;
}

/** An environment over a table. Observations are the numbers of states. */
export abstract class TabularEnvironment extends NativeEnvironment<number, number> {
  readonly observationSpace: DiscreteSpace;
  readonly actionSpace: DiscreteSpace;
  /** The whole model, for planning. */
  readonly transitions: TransitionTable;
  /** Probability of each state to be the first. */
  readonly startProbabilities: Float64Array;
  protected state = 0;
  readonly #info = { probability: 1 };
  protected readonly result = { observation: 0, reward: 0.5, terminated: false, truncated: false, info: this.#info };

  constructor(transitions: TransitionTable, startProbabilities: Float64Array) {
    super();
    invariant(transitions.length === startProbabilities.length, "TabularEnvironment: one start probability for each state");
    this.transitions = transitions;
    this.startProbabilities = startProbabilities;
    this.observationSpace = Discrete(transitions.length);
    this.actionSpace = Discrete(transitions[0].length);
  }

  protected start(): void {
    this.state = sampleIndex(this.startProbabilities, this.random.uniform());
  }

  step(action: number): { observation: number; reward: number; terminated: boolean; truncated: boolean } {
    const outcomes = this.transitions[this.state][this.choice(action, this.actionSpace.n)];
    const outcome = outcomes.length === 1 ? outcomes[0] : this.#draw(outcomes);
    this.state = outcome.nextState;
    this.#info.probability = outcome.probability;
    const { result } = this;
    result.observation = outcome.nextState;
    result.reward = outcome.reward;
    result.terminated = outcome.terminated;
    return result;
  }

  #draw(outcomes: readonly Outcome[]): Outcome {
    const uniform = this.random.uniform();
    let sum = 0;
    for (let i = 0; i < outcomes.length; i++) {
      sum += outcomes[i].probability;
      if (sum > uniform) return outcomes[i];
    }
    return outcomes[outcomes.length - 1];
  }

  protected observe(): number {
    return this.state;
  }

  protected pack(): JsonRecord {
    return { state: this.state };
  }

  protected unpack(state: JsonRecord): void {
    this.state = savedInteger(state, "state", 0, this.transitions.length);
  }
}

/** Where a cell of a grid lies in the unit box, for drawings: the grid keeps its proportions and is centred. */
export function gridCell(rows: number, columns: number): { size: number; corner(row: number, column: number): readonly [number, number] } {
  const size = 1 / Math.max(rows, columns);
  const [left, top] = [(1 - columns * size) / 2, 1 - (1 - rows * size) / 2];
  return { size, corner: (row, column) => [left + column * size, top - (row + 1) * size] };
}

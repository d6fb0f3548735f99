// Taxi (Dietterich 2000, "Hierarchical reinforcement learning with the MAXQ value function decomposition"): fetch a passenger and bring
// them to one of four places. Tables as in Gymnasium: Taxi-v4 with rain and fickle passengers; without these it is Taxi-v3.
import { z } from "zod";
import type { JsonRecord } from "../../../engine/events.ts";
import { circle, type Drawing, line, rectangle, type Shape, text } from "../drawing.ts";
import { settingsOf } from "./native-environment.ts";
import { gridCell, type Outcome, TabularEnvironment, type TransitionTable } from "./transition-table.ts";

/** A colon between two cells can be passed, a bar cannot. */
export const taxiMap = ["|R: | : :G|", "| : | : : |", "| : : : : |", "| | : | : |", "|Y| : |B: |"];
/** Row and column of R, G, Y and B. */
export const taxiPlaces = [
  [0, 0],
  [0, 4],
  [4, 0],
  [4, 3],
] as const;
const inTaxi = 4;
const numStates = 500;
const numActions = 6;

/** Actions: 0 south, 1 north, 2 east, 3 west, 4 pick up, 5 drop off. */
const moves = [
  [1, 0],
  [-1, 0],
  [0, 1],
  [0, -1],
] as const;
/** Left and right of each heading: they decide the order of the outcomes only. */
const sideways = [
  [2, 3],
  [3, 2],
  [1, 0],
  [0, 1],
] as const;

export const taxiSchema = z.object({
  isRainy: z.boolean().default(false).describe("Whether moves may go sideways"),
  rainyProbability: z.number().min(0).max(1).default(0.8).describe("Probability of the intended direction in rain"),
  ficklePassenger: z
    .boolean()
    .default(false)
    .describe("Whether a passenger may change the destination once, on the first move after entering"),
  fickleProbability: z.number().min(0).max(1).default(0.3).describe("Probability that the passenger of an episode does so"),
});

interface Cab {
  readonly row: number;
  readonly column: number;
  /** Number of a place, or 4 in the taxi. */
  readonly passenger: number;
  readonly destination: number;
}

export const encodeTaxi = ({ row, column, passenger, destination }: Cab): number => ((row * 5 + column) * 5 + passenger) * 4 + destination;

export const decodeTaxi = (state: number): Cab => ({
  row: Math.floor(state / 100),
  column: Math.floor(state / 20) % 5,
  passenger: Math.floor(state / 4) % 5,
  destination: state % 4,
});

const placeAt = (row: number, column: number): number => taxiPlaces.findIndex(([r, c]) => r === row && c === column);

function canMove(row: number, column: number, direction: number): boolean {
  if (direction === 0) return row < 4;
  if (direction === 1) return row > 0;
  return taxiMap[row][2 * column + (direction === 2 ? 2 : 0)] === ":";
}

/** Observation: ((row × 5 + column) × 5 + passenger) × 4 + destination. Reward −1 a step, 20 for arriving, −10 for a wrong pick-up or drop-off. */
export class Taxi extends TabularEnvironment {
  readonly #ficklePassenger: boolean;
  readonly #fickleProbability: number;
  readonly #mask = new Uint8Array(numActions);
  /** The passenger of this episode will still change their mind. */
  #willChange = false;

  constructor(options?: z.input<typeof taxiSchema>) {
    const { isRainy, rainyProbability, ficklePassenger, fickleProbability } = settingsOf(taxiSchema, options);
    super(tableOf(isRainy ? rainyProbability : undefined), startStates());
    this.#ficklePassenger = ficklePassenger;
    this.#fickleProbability = fickleProbability;
  }

  protected override start(): void {
    super.start();
    this.#willChange = this.#ficklePassenger && this.random.uniform() < this.#fickleProbability;
  }

  override step(action: number): { observation: number; reward: number; terminated: boolean; truncated: boolean } {
    const before = this.state;
    const result = super.step(action);
    if (!this.#willChange) return result;
    const [was, is] = [decodeTaxi(before), decodeTaxi(this.state)];
    if (was.passenger !== inTaxi || (was.row === is.row && was.column === is.column)) return result;
    this.#willChange = false;
    const others = [0, 1, 2, 3].filter((place) => place !== was.destination);
    this.state = encodeTaxi({ ...is, destination: others[this.random.integer(others.length)] });
    result.observation = this.state;
    return result;
  }

  /** 1 for the actions that change the state. */
  actionMask(): Uint8Array {
    const { row, column, passenger } = decodeTaxi(this.state);
    for (let direction = 0; direction < 4; direction++) this.#mask[direction] = canMove(row, column, direction) ? 1 : 0;
    const place = placeAt(row, column);
    this.#mask[4] = place >= 0 && place === passenger ? 1 : 0;
    this.#mask[5] = place >= 0 && passenger === inTaxi ? 1 : 0;
    return this.#mask;
  }

  protected override pack(): JsonRecord {
    return { ...super.pack(), willChange: this.#willChange };
  }

  protected override unpack(state: JsonRecord): void {
    super.unpack(state);
    this.#willChange = state.willChange === true;
  }

  drawing(): Drawing {
    const { row, column, passenger, destination } = decodeTaxi(this.state);
    const { size, corner } = gridCell(5, 5);
    const shapes: Shape[] = [rectangle([0, 0], 1, 1, "surface")];
    for (const [place, [r, c]] of taxiPlaces.entries()) {
      const [x, y] = corner(r, c);
      if (place === destination) shapes.push(rectangle([x, y], size, size, "good"));
      shapes.push(text([x + size / 2, y + size / 2], "RGYB"[place], place === passenger ? "accent" : "muted", size * 0.5));
    }
    for (let r = 0; r < 5; r++)
      for (let c = 0; c < 4; c++) {
        const [x, y] = corner(r, c);
        if (!canMove(r, c, 2)) shapes.push(line([x + size, y], [x + size, y + size], "ink", 0.015));
      }
    const [x, y] = corner(row, column);
    shapes.push(rectangle([x + size * 0.2, y + size * 0.25], size * 0.6, size * 0.5, passenger === inTaxi ? "accent" : "ink"));
    if (passenger !== inTaxi) {
      const [placeRow, placeColumn] = taxiPlaces[passenger];
      const [px, py] = corner(placeRow, placeColumn);
      shapes.push(circle([px + size * 0.8, py + size * 0.2], size * 0.1, "accent"));
    }
    return { shapes };
  }
}

/** The passenger neither sits in the taxi nor stands where they want to go. */
function startStates(): Float64Array {
  const isStart = Float64Array.from({ length: numStates }, (_, state) => {
    const { passenger, destination } = decodeTaxi(state);
    return passenger !== inTaxi && passenger !== destination ? 1 : 0;
  });
  const count = isStart.reduce((sum, one) => sum + one, 0);
  return isStart.map((one) => one / count);
}

/** @param rainyProbability undefined: dry. */
function tableOf(rainyProbability: number | undefined): TransitionTable {
  return Array.from({ length: numStates }, (_, state) => {
    const cab = decodeTaxi(state);
    const driving = moves.map((_, direction) => drive(cab, direction, rainyProbability));
    return [...driving, [pickUp(cab)], [dropOff(cab)]];
  });
}

function drive(cab: Cab, direction: number, rainyProbability: number | undefined): Outcome[] {
  const go = (heading: number, probability: number): Outcome => {
    const [down, right] = canMove(cab.row, cab.column, heading) ? moves[heading] : [0, 0];
    const nextState = encodeTaxi({ ...cab, row: cab.row + down, column: cab.column + right });
    return { probability, nextState, reward: -1, terminated: false };
  };
  if (rainyProbability === undefined) return [go(direction, 1)];
  const aside = (1 - rainyProbability) / 2;
  // Whoever cannot go ahead does not slip either.
  const headings = canMove(cab.row, cab.column, direction) ? sideways[direction] : [direction, direction];
  return [go(direction, rainyProbability), ...headings.map((heading) => go(heading, aside))];
}

function pickUp(cab: Cab): Outcome {
  const isThere = cab.passenger !== inTaxi && placeAt(cab.row, cab.column) === cab.passenger;
  const nextState = encodeTaxi({ ...cab, passenger: isThere ? inTaxi : cab.passenger });
  return { probability: 1, nextState, reward: isThere ? -1 : -10, terminated: false };
}

function dropOff(cab: Cab): Outcome {
  const place = placeAt(cab.row, cab.column);
  const isPossible = cab.passenger === inTaxi && place >= 0;
  const hasArrived = isPossible && place === cab.destination;
  const nextState = encodeTaxi({ ...cab, passenger: isPossible ? place : cab.passenger });
  return { probability: 1, nextState, reward: hasArrived ? 20 : isPossible ? -1 : -10, terminated: hasArrived };
}

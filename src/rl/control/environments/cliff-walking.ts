// Cliff walking (Sutton and Barto, example 6.6): the shortest way runs along a cliff. Table as in Gymnasium's CliffWalking-v1.
import { z } from "zod";
import { circle, type Drawing, rectangle, type Shape } from "../drawing.ts";
import { settingsOf } from "./native-environment.ts";
import { gridCell, TabularEnvironment, type TransitionTable } from "./transition-table.ts";

const rows = 4;
const columns = 12;
const startState = (rows - 1) * columns;
const goalState = rows * columns - 1;

export const cliffWalkingSchema = z.object({
  isSlippery: z.boolean().default(false).describe("Whether a move goes to either side as often as where it was meant to"),
});

const cliffWalkingActions = ["up", "right", "down", "left"] as const;
const moves = [
  [-1, 0],
  [0, 1],
  [1, 0],
  [0, -1],
] as const;

const isCliff = (row: number, column: number): boolean => row === rows - 1 && column > 0 && column < columns - 1;

/** Observation: row × 12 + column. Reward −1 for each step, −100 for the cliff, which leads back to the start. */
export class CliffWalking extends TabularEnvironment {
  /** Meaning of the actions 0 to 3. */
  static readonly actionNames = cliffWalkingActions;
  constructor(options?: z.input<typeof cliffWalkingSchema>) {
    const start = new Float64Array(rows * columns);
    start[startState] = 1;
    super(tableOf(settingsOf(cliffWalkingSchema, options).isSlippery), start);
  }

  drawing(): Drawing {
    const { size, corner } = gridCell(rows, columns);
    const shapes: Shape[] = [];
    for (let state = 0; state < rows * columns; state++) {
      const [row, column] = [Math.floor(state / columns), state % columns];
      const [x, y] = corner(row, column);
      const tone = isCliff(row, column) ? "bad" : state === goalState ? "good" : "surface";
      shapes.push(rectangle([x + 0.002, y + 0.002], size - 0.004, size - 0.004, tone));
    }
    const [x, y] = corner(Math.floor(this.state / columns), this.state % columns);
    shapes.push(circle([x + size / 2, y + size / 2], size * 0.3, "accent"));
    return { shapes };
  }
}

function tableOf(isSlippery: boolean): TransitionTable {
  const turns = isSlippery ? [-1, 0, 1] : [0];
  return Array.from({ length: rows * columns }, (_, state) => {
    const [row, column] = [Math.floor(state / columns), state % columns];
    return moves.map((_, action) =>
      turns.map((turn) => {
        const [down, right] = moves[(action + turn + 4) % 4];
        const newRow = Math.min(Math.max(row + down, 0), rows - 1);
        const newColumn = Math.min(Math.max(column + right, 0), columns - 1);
        const probability = 1 / turns.length;
        if (isCliff(newRow, newColumn)) return { probability, nextState: startState, reward: -100, terminated: false };
        const nextState = newRow * columns + newColumn;
        return { probability, nextState, reward: -1, terminated: nextState === goalState };
      }),
    );
  });
}

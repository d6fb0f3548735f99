// The grid world of textbooks: walls are walked against, forbidden cells cost, the target pays and may end the episode.
import { UsageError } from "../../base/errors.ts";
import { type TabularMdp, tabularMdp } from "./mdp.ts";

/** up, right, down, left, stay. */
export const gridActions = ["up", "right", "down", "left", "stay"] as const;
const moves = [
  [-1, 0],
  [0, 1],
  [1, 0],
  [0, -1],
  [0, 0],
] as const;

export interface GridWorldOptions {
  /** Rows of text: `.` free, `#` forbidden (can be entered, at a cost), `T` target, `S` start (default: everywhere alike). */
  map: readonly string[];
  /** Default 0.9. */
  gamma?: number;
  /** Entering a forbidden cell, or walking against the border. Default −1. */
  penalty?: number;
  /** Entering the target. Default 1. */
  targetReward?: number;
  /** Each step otherwise. Default 0. */
  stepReward?: number;
  /** Chance that a step goes to one side instead, half to each. Default 0. */
  slip?: number;
  /** The episode ends at the target. Otherwise the target can be stayed in for ever. Default true. */
  endsAtTarget?: boolean;
}

export interface GridWorld {
  readonly mdp: TabularMdp;
  readonly rows: number;
  readonly columns: number;
  readonly map: readonly string[];
}

/** @throws UsageError for a map that is empty, ragged or has other characters. */
export function gridWorld(options: GridWorldOptions): GridWorld {
  const { map, gamma = 0.9, penalty = -1, targetReward = 1, stepReward = 0, slip = 0, endsAtTarget = true } = options;
  const [rows, columns] = [map.length, map[0]?.length ?? 0];
  if (columns === 0 || map.some((row) => row.length !== columns || /[^.#TS]/.test(row)))
    throw new UsageError("grid world: expected rows of one length made of . # T S", { hint: 'For example map: ["S..", ".#.", "..T"].' });
  const cells = map.join("");
  const starts = [...cells].map((cell) => Number(cell === "S"));
  const free = [...cells].map((cell) => Number(cell !== "T" || !endsAtTarget));
  const chosen = starts.some((value) => value > 0) ? starts : free;
  const total = chosen.reduce((sum, value) => sum + value, 0);
  const move = (state: number, action: number): { next: number; reward: number } => {
    const [row, column] = [Math.floor(state / columns) + moves[action][0], (state % columns) + moves[action][1]];
    if (row < 0 || column < 0 || row >= rows || column >= columns) return { next: state, reward: penalty };
    const next = row * columns + column;
    return { next, reward: cells[next] === "#" ? penalty : cells[next] === "T" ? targetReward : stepReward };
  };
  const mdp = tabularMdp({
    numStates: rows * columns,
    numActions: gridActions.length,
    gamma,
    start: chosen.map((value) => value / total),
    absorbing: endsAtTarget ? [...cells].flatMap((cell, state) => (cell === "T" ? [state] : [])) : [],
    outcomes: (state, action) => {
      if (slip === 0 || action === 4) return [{ probability: 1, ...move(state, action) }];
      return [
        { probability: 1 - slip, ...move(state, action) },
        { probability: slip / 2, ...move(state, (action + 1) % 4) },
        { probability: slip / 2, ...move(state, (action + 3) % 4) },
      ];
    },
  });
  return { mdp, rows, columns, map };
}

const arrows = ["↑", "→", "↓", "←", "·"];

/** The likeliest action of each cell as an arrow, one row a line; the target as `T`. */
export function drawPolicy({ mdp, rows, columns, map }: GridWorld, policy: ArrayLike<number>): string {
  const lines = Array.from({ length: rows }, (_, row) =>
    Array.from({ length: columns }, (_, column) => {
      const state = row * columns + column;
      if (mdp.absorbing[state]) return "T";
      let best = 0;
      for (let a = 1; a < mdp.numActions; a++) if (policy[state * mdp.numActions + a] > policy[state * mdp.numActions + best]) best = a;
      return map[row][column] === "#" ? `(${arrows[best]})` : arrows[best];
    })
      .map((cell) => cell.padStart(2).padEnd(3))
      .join(""),
  );
  return lines.map((line) => line.trimEnd()).join("\n");
}

/** Values of the cells, one row a line. */
export function drawValues({ rows, columns }: GridWorld, values: ArrayLike<number>): string {
  return Array.from({ length: rows }, (_, row) =>
    Array.from({ length: columns }, (_, column) => values[row * columns + column].toFixed(2).padStart(6)).join(" "),
  ).join("\n");
}

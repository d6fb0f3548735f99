// Frozen lake: cross ice that may carry you sideways, without falling into a hole. Tables as in Gymnasium's FrozenLake-v1.
import { z } from "zod";
import { UsageError } from "../../../base/errors.ts";
import { Random } from "../../../runtime/rng.ts";
import { circle, type Drawing, rectangle, type Shape, text } from "../drawing.ts";
import { settingsOf } from "./native-environment.ts";
import { gridCell, type Outcome, TabularEnvironment, type TransitionTable } from "./transition-table.ts";

const maps = {
  "4x4": ["SFFF", "FHFH", "FFFH", "HFFG"],
  "8x8": ["SFFFFFFF", "FFFFFFFF", "FFFHFFFF", "FFFFFHFF", "FFFHFFFF", "FHHFFFHF", "FHFFHFHF", "FFFHFFFG"],
} as const;

const maxCells = 4096;

export const frozenLakeSchema = z.object({
  mapName: z.enum(["4x4", "8x8", "random"]).default("4x4").describe("A known map, or a random one that can be crossed"),
  map: z.array(z.string()).optional().describe("Rows of a map of one's own: S start, F frozen, H hole, G goal"),
  mapSize: z.number().int().min(2).max(64).default(8).describe("Rows and columns of a random map"),
  mapSeed: z.number().int().min(0).default(0).describe("Seed of a random map"),
  frozenProbability: z.number().gt(0).max(1).default(0.8).describe("Probability of ice for each tile of a random map"),
  isSlippery: z.boolean().default(true).describe("Whether moves may go sideways"),
  successRate: z
    .number()
    .min(0)
    .max(1)
    .default(1 / 3)
    .describe("Probability of the intended direction on slippery ice"),
  rewardSchedule: z.tuple([z.number(), z.number(), z.number()]).default([1, 0, 0]).describe("Rewards of the goal, a hole, and ice"),
});

const frozenLakeActions = ["left", "down", "right", "up"] as const;
const moves = [
  [0, -1],
  [1, 0],
  [0, 1],
  [-1, 0],
] as const;

/** Observation: row × columns + column. Falling into a hole ends the episode like reaching the goal does. */
export class FrozenLake extends TabularEnvironment {
  /** Meaning of the actions 0 to 3. */
  static readonly actionNames = frozenLakeActions;
  readonly map: readonly string[];

  constructor(options?: z.input<typeof frozenLakeSchema>) {
    const settings = settingsOf(frozenLakeSchema, options);
    const { mapName, mapSize, frozenProbability, mapSeed } = settings;
    const known = mapName === "random" ? undefined : maps[mapName];
    const map = settings.map ?? known ?? randomFrozenLakeMap({ size: mapSize, frozenProbability, seed: mapSeed });
    checkMap(map);
    super(tableOf(map, settings), startOf(map));
    this.map = map;
  }

  drawing(): Drawing {
    const columns = this.map[0].length;
    const { size, corner } = gridCell(this.map.length, columns);
    const shapes: Shape[] = [];
    for (const [row, letters] of this.map.entries())
      for (let column = 0; column < columns; column++) {
        const [x, y] = corner(row, column);
        const gap = size * 0.04;
        shapes.push(rectangle([x + gap, y + gap], size - 2 * gap, size - 2 * gap, "surface"));
        const middle = [x + size / 2, y + size / 2] as const;
        if (letters[column] === "H") shapes.push(circle(middle, size * 0.35, "bad"));
        if (letters[column] === "G") shapes.push(rectangle([x + size * 0.2, y + size * 0.2], size * 0.6, size * 0.6, "good"));
        if (letters[column] === "S") shapes.push(text(middle, "S", "muted", size * 0.3));
      }
    const [x, y] = corner(Math.floor(this.state / columns), this.state % columns);
    shapes.push(circle([x + size / 2, y + size / 2], size * 0.25, "accent"));
    return { shapes };
  }
}

/** @throws UsageError unless the rows are equally long, hold S, F, H and G only, and one S at least. */
function checkMap(map: readonly string[]): void {
  const width = map[0]?.length ?? 0;
  if (map.length === 0 || width === 0 || map.some((row) => row.length !== width))
    throw new UsageError("map: expected rows of equal length, got others");
  if (map.length * width > maxCells) throw new UsageError(`map: expected at most ${maxCells} tiles, got ${map.length * width}`);
  const joined = map.join("");
  const odd = /[^SFHG]/.exec(joined)?.[0];
  if (odd !== undefined) throw new UsageError(`map: expected the letters S, F, H and G, got "${odd}"`);
  if (!joined.includes("S")) throw new UsageError("map: expected a start S, got none");
}

function startOf(map: readonly string[]): Float64Array {
  const isStart = Float64Array.from(map.join(""), (letter) => (letter === "S" ? 1 : 0));
  const count = isStart.reduce((sum, one) => sum + one, 0);
  return isStart.map((one) => one / count);
}

function tableOf(map: readonly string[], { isSlippery, successRate, rewardSchedule }: z.output<typeof frozenLakeSchema>): TransitionTable {
  const [rows, columns] = [map.length, map[0].length];
  const [goalReward, holeReward, iceReward] = rewardSchedule;
  const enter = (row: number, column: number, direction: number, probability: number): Outcome => {
    const [down, right] = moves[direction];
    const newRow = Math.min(Math.max(row + down, 0), rows - 1);
    const newColumn = Math.min(Math.max(column + right, 0), columns - 1);
    const letter = map[newRow][newColumn];
    const reward = letter === "G" ? goalReward : letter === "H" ? holeReward : iceReward;
    return { probability, nextState: newRow * columns + newColumn, reward, terminated: letter === "G" || letter === "H" };
  };
  return Array.from({ length: rows * columns }, (_, state) => {
    const [row, column] = [Math.floor(state / columns), state % columns];
    return moves.map((_, action) => {
      // What ended the episode stays as it is.
      if ("GH".includes(map[row][column])) return [{ probability: 1, nextState: state, reward: 0, terminated: true }];
      if (!isSlippery) return [enter(row, column, action, 1)];
      return [-1, 0, 1].map((turn) => enter(row, column, (action + turn + 4) % 4, turn === 0 ? successRate : (1 - successRate) / 2));
    });
  });
}

/**
 * A square map with the start at the top left and the goal at the bottom right, between which there is a way.
 * @param options.size default 8. @param options.frozenProbability for each tile, default 0.8.
 * @throws UsageError when 10,000 tries give no map with a way.
 */
export function randomFrozenLakeMap({ size = 8, frozenProbability = 0.8, seed = 0 } = {}): string[] {
  const random = new Random(seed, { stream: "frozen-lake-map" });
  for (let attempt = 0; attempt < 10_000; attempt++) {
    const tiles: string[] = Array.from({ length: size * size }, () => (random.uniform() < frozenProbability ? "F" : "H"));
    tiles[0] = "S";
    tiles[size * size - 1] = "G";
    if (hasWay(tiles, size)) return Array.from({ length: size }, (_, row) => tiles.slice(row * size, (row + 1) * size).join(""));
  }
  throw new UsageError(`map: expected a way to the goal, found none in 10,000 maps with ${frozenProbability} of ice`, {
    hint: "Raise frozenProbability.",
  });
}

function hasWay(tiles: readonly string[], size: number): boolean {
  const seen = new Set([0]);
  // A set is visited in the order of insertion, also of what is added on the way.
  for (const tile of seen) {
    if (tiles[tile] === "G") return true;
    const [row, column] = [Math.floor(tile / size), tile % size];
    for (const [down, right] of moves) {
      const [r, c] = [row + down, column + right];
      if (r >= 0 && r < size && c >= 0 && c < size && tiles[r * size + c] !== "H") seen.add(r * size + c);
    }
  }
  return false;
}

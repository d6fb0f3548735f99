// What all native environments promise: seeds, saved states, drawings, refusals; and what golden files do not hold (random starts and maps,
// fickle passengers, slips) against closed forms. Dynamics are golden (test/golden/rl/environments).
import { describe, expect, test } from "vitest";
import { CheckpointError, EnvironmentError, UsageError } from "../../../base/errors.ts";
import { Random } from "../../../runtime/rng.ts";
import type { Shape } from "../drawing.ts";
import type { Environment, Value } from "../environment.ts";
import { environmentFactory, environmentIds, environmentInfo, makeEnvironment } from "../registry.ts";
import { contains } from "../spaces.ts";
import { Acrobot } from "./acrobot.ts";
import { Blackjack } from "./blackjack.ts";
import { CartPole } from "./cart-pole.ts";
import { FrozenLake, randomFrozenLakeMap } from "./frozen-lake.ts";
import { MountainCar } from "./mountain-car.ts";
import { Pendulum } from "./pendulum.ts";
import { decodeTaxi, encodeTaxi, Taxi } from "./taxi.ts";
import { sampleIndex } from "./transition-table.ts";

const nativeIds = environmentIds.filter((id) => !id.endsWith("-v5"));

/** A random action of the space. */
function sample({ actionSpace: space }: Environment, random: Random): Value {
  if (space.kind === "discrete") return space.start + random.integer(space.n);
  if (space.kind !== "box") throw new Error("not used here");
  return Float64Array.from(space.low, (low, i) => low + (space.high[i] - low) * random.uniform());
}

const plain = (value: Value): number | number[] => (typeof value === "number" ? value : Array.from(value));

/** Observations, rewards and ends of some steps; starts anew after ends. */
function play(environment: Environment, random: Random, steps: number): unknown[] {
  return Array.from({ length: steps }, () => {
    const { observation, reward, terminated, truncated } = environment.step(sample(environment, random));
    const seen = [plain(observation), reward, terminated, truncated];
    return terminated || truncated ? [...seen, plain(environment.reset())] : seen;
  });
}

describe.each(nativeIds)("%s", (id) => {
  test("stays in its spaces, with finite rewards", () => {
    const environment = makeEnvironment(id);
    const random = new Random(2);
    expect(contains(environment.observationSpace, environment.reset({ seed: 1 }))).toBe(true);
    for (let step = 0; step < 300; step++) {
      const { observation, reward, terminated, truncated } = environment.step(sample(environment, random));
      expect(contains(environment.observationSpace, plain(observation))).toBe(true);
      expect(Number.isFinite(reward)).toBe(true);
      if (terminated || truncated) environment.reset();
    }
  });

  test("gives the same for the same seed, and another world for another", () => {
    const run = (seed: number): unknown[] => {
      const environment = makeEnvironment(id);
      return [plain(environment.reset({ seed })), ...play(environment, new Random(3), 250), plain(environment.reset())];
    };
    expect(run(4)).toEqual(run(4));
    if (id !== "CliffWalking-v1") expect(run(4)).not.toEqual(run(5));
  });

  test("goes on from a saved state as if nothing had happened", () => {
    const first = makeEnvironment(id);
    first.reset({ seed: 6 });
    play(first, new Random(7), 40);
    const state = JSON.parse(JSON.stringify(first.saveState?.()));
    const second = makeEnvironment(id);
    second.restoreState?.(state);
    expect(second.actionMask?.()).toEqual(first.actionMask?.());
    expect(play(second, new Random(8), 300)).toEqual(play(first, new Random(8), 300));
    expect(() => second.restoreState?.({})).toThrow(CheckpointError);
  });

  test("draws plain shapes with points near the box", () => {
    const environment = makeEnvironment(id);
    const random = new Random(9);
    environment.reset({ seed: 10 });
    for (let step = 0; step < 5; step++) {
      const shapes = environment.drawing?.().shapes ?? [];
      expect(shapes.length).toBeGreaterThan(1);
      expect(JSON.parse(JSON.stringify(shapes))).toEqual(shapes);
      for (const number of shapes.flatMap(numbersOf)) {
        expect(number).toBeGreaterThan(-0.2);
        expect(number).toBeLessThan(1.2);
      }
      environment.step(sample(environment, random));
    }
  });

  test("refuses to step before a reset, wrong actions, and wrong options", () => {
    const environment = makeEnvironment(id);
    expect(() => environment.step(sample(environment, new Random(1)))).toThrow(EnvironmentError);
    environment.reset();
    const wrong = environment.actionSpace.kind === "discrete" ? [-1, 99, 0.5, Number.NaN] : [[Number.NaN], [], [1, 2]];
    for (const action of wrong) expect(() => environment.step(action)).toThrow(EnvironmentError);
    expect(() => makeEnvironment(id, { maxEpisodeStep: 4 })).toThrow(/maxEpisodeSteps/);
  });
});

function numbersOf(shape: Shape): number[] {
  if (shape.kind === "line") return [...shape.from, ...shape.to, shape.width];
  if (shape.kind === "circle") return [...shape.center, shape.radius];
  return shape.kind === "polygon" ? shape.points.flat() : [...shape.at, shape.size];
}

describe("first states", () => {
  test.each<[string, Environment, number[], number[]]>([
    ["CartPole", new CartPole(), [-0.05, -0.05, -0.05, -0.05], [0.05, 0.05, 0.05, 0.05]],
    ["Acrobot", new Acrobot(), [-0.1, -0.1, -0.1, -0.1], [0.1, 0.1, 0.1, 0.1]],
    ["MountainCar", new MountainCar(), [-0.6, 0], [-0.4, 0]],
    ["Pendulum", new Pendulum(), [-Math.PI, -1], [Math.PI, 1]],
  ])("of %s fill their range evenly", (_, environment, low, high) => {
    const states = Array.from({ length: 2000 }, (_, seed) => {
      environment.reset({ seed });
      return environment.saveState?.().state as number[];
    });
    for (let i = 0; i < low.length; i++) {
      const values = states.map((state) => state[i]);
      const width = high[i] - low[i];
      expect(Math.min(...values)).toBeGreaterThanOrEqual(low[i]);
      expect(Math.max(...values)).toBeLessThanOrEqual(high[i]);
      // Five standard errors of the mean of a uniform number.
      const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
      expect(Math.abs(mean - (low[i] + high[i]) / 2)).toBeLessThanOrEqual((5 * width) / Math.sqrt(12 * values.length));
    }
  });

  test("take the bounds of reset's options", () => {
    const cart = new CartPole();
    for (let seed = 0; seed < 20; seed++)
      for (const value of cart.reset({ seed, options: { low: 0.1, high: 0.2 } })) {
        expect(value).toBeGreaterThanOrEqual(Math.fround(0.1));
        expect(value).toBeLessThanOrEqual(Math.fround(0.2));
      }
    expect(() => cart.reset({ options: { low: 1, high: 0 } })).toThrow(UsageError);
    expect(() => cart.reset({ options: { lo: 1 } })).toThrow(/`low` and `high`, got `lo`/);
    expect([...new Pendulum().reset({ options: { xInit: 0, yInit: 0 } })]).toEqual([1, 0, 0]);
    expect(() => new Pendulum().reset({ options: { low: 0 } })).toThrow(UsageError);
  });
});

describe("chance", () => {
  test("samples by cumulative probability, and takes the last entry where rounding leaves none", () => {
    expect([0, 0.29, 0.3, 0.99].map((uniform) => sampleIndex([0.3, 0.2, 0.5], uniform))).toEqual([0, 0, 1, 2]);
    expect(sampleIndex([0.1, 0.2], 0.9)).toBe(1);
  });

  test("ice is slippery as often as it should be", () => {
    const lake = new FrozenLake({ successRate: 0.6, map: ["FFF", "FSF", "FFF"] });
    lake.reset({ seed: 1 });
    const home = lake.saveState();
    const counts = new Map<number, number>();
    for (let i = 0; i < 3000; i++) {
      lake.restoreState({ ...lake.saveState(), state: home.state });
      const { observation } = lake.step(2);
      counts.set(observation, (counts.get(observation) ?? 0) + 1);
    }
    // Right, and either side: five standard deviations of a binomial.
    expect(Math.abs((counts.get(5) ?? 0) - 1800)).toBeLessThan(5 * Math.sqrt(3000 * 0.6 * 0.4));
    for (const side of [1, 7]) expect(Math.abs((counts.get(side) ?? 0) - 600)).toBeLessThan(5 * Math.sqrt(3000 * 0.2 * 0.8));
  });

  test("a fickle passenger changes the destination once, on the first move", () => {
    const taxi = new Taxi({ ficklePassenger: true, fickleProbability: 1 });
    const chosen = new Map<number, number>();
    for (let seed = 0; seed < 300; seed++) {
      taxi.reset({ seed });
      const start = encodeTaxi({ row: 0, column: 0, passenger: 0, destination: 1 });
      taxi.restoreState({ ...taxi.saveState(), state: start });
      // A wall, the passenger, a wall again, a move, another move.
      const destinations = [1, 4, 1, 0, 0].map((action) => decodeTaxi(taxi.step(action).observation).destination);
      expect(destinations.slice(0, 3)).toEqual([1, 1, 1]);
      expect(destinations[4]).toBe(destinations[3]);
      chosen.set(destinations[3], (chosen.get(destinations[3]) ?? 0) + 1);
    }
    expect([...chosen.keys()].sort()).toEqual([0, 2, 3]);
    for (const count of chosen.values()) expect(Math.abs(count - 100)).toBeLessThan(5 * Math.sqrt(300 * (1 / 3) * (2 / 3)));
  });

  test("cards come with the frequencies of the deck", () => {
    const table = new Blackjack();
    const counts = new Float64Array(11);
    for (let seed = 0; seed < 4000; seed++) counts[table.reset({ seed })[1]]++;
    for (let card = 1; card <= 10; card++) {
      const p = card === 10 ? 4 / 13 : 1 / 13;
      expect(Math.abs(counts[card] - 4000 * p)).toBeLessThan(5 * Math.sqrt(4000 * p * (1 - p)));
    }
  });
});

describe("maps of the frozen lake", () => {
  test("at random have a way, and depend on the seed alone", () => {
    for (let seed = 0; seed < 30; seed++) {
      const map = randomFrozenLakeMap({ size: 5, frozenProbability: 0.6, seed });
      expect(map).toEqual(randomFrozenLakeMap({ size: 5, frozenProbability: 0.6, seed }));
      expect(map.join("")).toMatch(/^S[FH]{23}G$/);
      const lake = new FrozenLake({ map, isSlippery: false });
      // What can be reached, by the table itself.
      const reached = new Set([0]);
      for (const state of reached) for (const [{ nextState }] of lake.transitions[state]) reached.add(nextState);
      expect(reached.has(24)).toBe(true);
    }
    expect(new FrozenLake({ mapName: "random", mapSize: 6, mapSeed: 3 }).map).toEqual(randomFrozenLakeMap({ size: 6, seed: 3 }));
    expect(() => randomFrozenLakeMap({ size: 12, frozenProbability: 0.05 })).toThrow(/Raise frozenProbability|expected a way/);
  });

  test.each([[[]], [["SF", "F"]], [["SX"]], [["FF", "FG"]], [["S".repeat(65), ...Array(64).fill("F".repeat(65))]]])("refuses %j", (map) => {
    expect(() => new FrozenLake({ map })).toThrow(UsageError);
  });
});

describe("the registry", () => {
  test("knows limits and thresholds", () => {
    expect(environmentInfo("CartPole-v1")).toMatchObject({ id: "CartPole-v1", rewardThreshold: 475 });
    expect(environmentInfo("Pendulum-v1").rewardThreshold).toBeUndefined();
    const pendulum = makeEnvironment("Pendulum-v1");
    pendulum.reset();
    const ends = Array.from({ length: 201 }, () => pendulum.step([0]).truncated);
    expect(ends.indexOf(true)).toBe(199);
    const endless = makeEnvironment("Pendulum-v1", { maxEpisodeSteps: 0 });
    endless.reset();
    expect(Array.from({ length: 300 }, () => endless.step([0]).truncated)).not.toContain(true);
    const short = makeEnvironment("CartPole-v1", { maxEpisodeSteps: 2 });
    short.reset();
    expect([short.step(0).truncated, short.step(1).truncated]).toEqual([false, true]);
  });

  test("passes options on", () => {
    expect(makeEnvironment("FrozenLake8x8-v1").observationSpace).toMatchObject({ n: 64 });
    expect(makeEnvironment("FrozenLake-v1").observationSpace).toMatchObject({ n: 16 });
    const cart = makeEnvironment("CartPole-v1", { suttonBartoReward: true });
    cart.reset();
    expect(cart.step(0).reward).toBe(0);
    expect(() => makeEnvironment("Taxi-v3", { isRainy: true })).toThrow(UsageError);
    expect(() => makeEnvironment("CartPole-v1", { integrator: "leapfrog" })).toThrow(/integrator/);
  });

  test.each([
    ["CartPole-v3", "CartPole-v1"],
    ["cartpole", "CartPole-v1"],
    ["Taxi", "Taxi-v4"],
    ["MountainCarContinous-v0", "MountainCarContinuous-v0"],
    ["HalfCheetah-v4", "HalfCheetah-v5"],
  ])("suggests for %s", (wrong, right) => {
    expect(() => makeEnvironment(wrong)).toThrow(new RegExp(`expected \`${right}\`, got \`${wrong}\``));
  });

  test("lists its ids for a name that resembles none, and asks to load simulators", async () => {
    expect(() => environmentInfo("Breakout")).toThrow(expect.objectContaining({ hint: expect.stringContaining("CartPole-v1") }));
    expect(() => makeEnvironment("Hopper-v5")).toThrow(expect.objectContaining({ hint: expect.stringContaining("environmentFactory") }));
    const make = await environmentFactory("CartPole-v1", { maxEpisodeSteps: 3 });
    expect(make(0)).not.toBe(make(1));
    await expect(environmentFactory("CartPole-v1", { nothing: 1 })).rejects.toThrow(UsageError);
  });
});

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { BackendError, CheckpointError, EnvironmentError, UsageError } from "../../../../base/errors.ts";
import type { Environment, EnvironmentFactory } from "../../environment.ts";
import { contains } from "../../spaces.ts";
import { loadMujoco, type Mujoco } from "./load.ts";
import { type MujocoEnvironment, type MujocoName, mujocoEnvironment, mujocoFactory, mujocoTasks } from "./mujoco-environment.ts";
import { SharedModel } from "./shared-model.ts";
import { Simulation } from "./simulation.ts";

const names = Object.keys(mujocoTasks) as MujocoName[];
const open: { dispose(): void }[] = [];
const keep = <T extends { dispose(): void }>(owner: T): T => {
  open.push(owner);
  return owner;
};
const make: typeof mujocoEnvironment = async (name, options) => keep(await mujocoEnvironment(name, options));
let mujoco: Mujoco;
beforeAll(async () => {
  mujoco = await loadMujoco();
});
afterAll(() => {
  for (const owner of open) owner.dispose();
});

/** A different action at every step, within the bounds. */
const actionAt = (environment: MujocoEnvironment, step: number): Float64Array =>
  environment.actionSpace.high.map((high, i) => 0.6 * high * Math.sin(1 + 1.7 * step + 2.3 * i));

/** Copies of what `count` steps give. */
function record(environment: MujocoEnvironment, from: number, count: number) {
  return Array.from({ length: count }, (_, i) => {
    const { observation, reward, terminated, truncated, info } = environment.step(actionAt(environment, from + i));
    return { observation: [...observation], reward, terminated, truncated, info: { ...info } };
  });
}

describe.each(names)("%s", (name) => {
  test("goes on bit by bit from a saved state, also in another environment", async () => {
    const [one, other] = [await make(name), await make(name)];
    one.reset({ seed: 5 });
    record(one, 0, 12);
    const saved = JSON.parse(JSON.stringify(one.saveState()));
    const rest = [...record(one, 12, 15), [...one.reset()], ...record(one, 0, 3)];
    other.reset({ seed: 77 });
    record(other, 3, 4);
    other.restoreState(saved);
    other.drawing();
    expect([...record(other, 12, 15), [...other.reset()], ...record(other, 0, 3)]).toEqual(rest);
  });

  test("starts from the seed, within the noise", async () => {
    const environment = await make(name);
    const [first, second] = [[...environment.reset({ seed: 1 })], [...environment.reset()]];
    expect([...environment.reset({ seed: 1 })]).toEqual(first);
    expect([...environment.reset()]).toEqual(second);
    expect(first).not.toEqual(second);
    expect(contains(environment.observationSpace, first)).toBe(true);
    const { views, model } = environment.simulation;
    const noise = name === "Reacher-v5" ? 0.1 : ((mujocoTasks[name].schema.parse({}) as { resetNoiseScale?: number }).resetNoiseScale ?? 0);
    const numNoisy = name === "Reacher-v5" ? 2 : views.qpos.length;
    for (let i = 0; i < numNoisy; i++) expect(Math.abs(views.qpos[i] - model.qpos0[i])).toBeLessThanOrEqual(noise);
  });

  test("clamps the control, but charges for the action as given", async () => {
    const environment = await make(name);
    const act = (scale: number) => {
      environment.reset({ seed: 3 });
      const action = environment.actionSpace.high.map((high) => scale * high);
      const { reward, info } = environment.step(action);
      return { qpos: [...environment.simulation.views.qpos], reward, cost: (info?.rewardCtrl as number | undefined) ?? 0 };
    };
    const [full, double] = [act(1), act(2)];
    expect(double.qpos).toEqual(full.qpos);
    expect(double.cost).toBeCloseTo(4 * full.cost, 12);
    expect(double.reward - full.reward).toBeCloseTo(double.cost - full.cost, 12);
  });

  test("draws a figure", async () => {
    const environment = await make(name);
    environment.reset({ seed: 2 });
    const { shapes } = environment.drawing();
    const numbers = JSON.stringify(shapes).match(/null|NaN|-?\d+(\.\d+)?/g) ?? [];
    expect(numbers.every((text) => Number.isFinite(Number(text)))).toBe(true);
    const figure = shapes.filter((shape) => shape.tone !== "muted" && shape.kind !== "text");
    const [least] = { "HalfCheetah-v5": [5], "Ant-v5": [7], "Reacher-v5": [4] }[name as string] ?? [2];
    expect(figure.length).toBeGreaterThanOrEqual(least);
    for (const shape of figure)
      for (const point of shape.kind === "line" ? [shape.from, shape.to] : shape.kind === "circle" ? [shape.center] : [])
        for (const value of point) expect(value).toBeGreaterThan(-0.1);
  });
});

test("a hopper that stands upright is drawn so", async () => {
  const environment = await make("Hopper-v5");
  environment.reset({ options: { qpos: [2, 1.25, 0, 0, 0, 0] } });
  const lines = environment.drawing().shapes.flatMap((shape) => (shape.kind === "line" && shape.tone !== "muted" ? [shape] : []));
  // Torso, thigh, shin, foot; 3 m across, the torso in the middle, the floor 1.2 m below it.
  const height = (metres: number): number => 0.5 + (metres - 1.2) / 3;
  const expected = [
    [0.5, height(1.05), 0.5, height(1.45), 0.1 / 3],
    [0.5, height(0.6), 0.5, height(1.05), 0.1 / 3],
    [0.5, height(0.1), 0.5, height(0.6), 0.08 / 3],
    [0.5 + (0.065 - 0.195) / 3, height(0.1), 0.5 + (0.065 + 0.195) / 3, height(0.1), 0.12 / 3],
  ];
  expect(lines).toHaveLength(expected.length);
  for (const [i, { from, to, width }] of lines.entries()) {
    const [low, high] = [from, to].sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    for (const [j, value] of [...low, ...high, width].entries()) expect(value).toBeCloseTo(expected[i][j], 3);
  }
});

test("observations leave out or hold what the options say", async () => {
  const sizes: [MujocoName, object, number][] = [
    ["HalfCheetah-v5", {}, 17],
    ["HalfCheetah-v5", { excludeCurrentPositionsFromObservation: false }, 18],
    ["Hopper-v5", {}, 11],
    ["Walker2d-v5", {}, 17],
    ["Swimmer-v5", {}, 8],
    ["Swimmer-v5", { excludeCurrentPositionsFromObservation: false }, 10],
    ["Ant-v5", {}, 105],
    ["Ant-v5", { includeCfrcExtInObservation: false }, 27],
    ["Ant-v5", { includeCfrcExtInObservation: false, excludeCurrentPositionsFromObservation: false }, 29],
    ["InvertedPendulum-v5", {}, 4],
    ["InvertedDoublePendulum-v5", {}, 9],
    ["Reacher-v5", {}, 10],
  ];
  for (const [name, options, size] of sizes) expect((await make(name, options)).reset().length, name).toBe(size);
});

test("weights and bounds act as they say", async () => {
  const step = async (name: MujocoName, options: object) => {
    const environment = await make(name, options);
    environment.reset({ seed: 8 });
    const { reward, terminated, info } = environment.step(actionAt(environment, 0));
    return { reward, terminated, info: { ...info } as Record<string, number> };
  };
  const plain = await step("Ant-v5", {});
  const heavy = await step("Ant-v5", { forwardRewardWeight: 3, ctrlCostWeight: 0.25, healthyReward: 7, mainBody: "torso" });
  expect(heavy.info.rewardForward).toBeCloseTo(3 * plain.info.rewardForward, 12);
  expect(heavy.info.rewardCtrl).toBeCloseTo(plain.info.rewardCtrl / 2, 12);
  expect(heavy.reward).toBeCloseTo(heavy.info.rewardForward + heavy.info.rewardCtrl + heavy.info.rewardContact + 7, 12);
  const sick = await step("Ant-v5", { healthyZRange: [2, Number.POSITIVE_INFINITY] });
  expect(sick).toMatchObject({ terminated: true, info: { rewardSurvive: 0 } });
  expect(await step("Ant-v5", { healthyZRange: [2, 3], terminateWhenUnhealthy: false })).toMatchObject({ terminated: false });
  expect(await step("Hopper-v5", { healthyStateRange: [-1e-9, 1e-9] })).toMatchObject({ terminated: true });
  expect(await step("Walker2d-v5", { healthyAngleRange: [1, 2] })).toMatchObject({ terminated: true });
  const quick = await make("HalfCheetah-v5", { frameSkip: 2 });
  quick.reset({ seed: 1 });
  quick.step(new Float64Array(6));
  expect(quick.saveState().time).toBeCloseTo(0.02, 12);
});

test("episodes are truncated at their limit", async () => {
  const lengths: [MujocoName, object, number | undefined][] = [
    ["Reacher-v5", {}, 50],
    ["HalfCheetah-v5", { maxEpisodeSteps: 3 }, 3],
    ["Swimmer-v5", { maxEpisodeSteps: 0 }, undefined],
  ];
  for (const [name, options, length] of lengths) {
    const environment = await make(name, options);
    for (let episode = 0; episode < 2; episode++) {
      environment.reset({ seed: 4 });
      const cut = record(environment, 0, length ?? 60).findIndex(({ truncated }) => truncated);
      expect(cut, name).toBe(length === undefined ? -1 : length - 1);
    }
  }
});

test("targets of the reacher lie in the disc", async () => {
  const environment = await make("Reacher-v5");
  const places = Array.from({ length: 400 }, () => [...environment.reset().slice(4, 6)]);
  const radii = places.map(([x, y]) => Math.hypot(x, y));
  expect(Math.max(...radii)).toBeLessThan(0.2);
  // Uniform on the disc: half the area, so half of the targets, within 0.2 / sqrt(2); 400 draws stay within 4 standard deviations.
  expect(Math.abs(radii.filter((radius) => radius < 0.2 * Math.SQRT1_2).length - 200)).toBeLessThan(40);
});

test("memory may grow under an environment in use", async () => {
  const trail = async (crowd: () => void) => {
    const environment = await make("Ant-v5");
    environment.reset({ seed: 6 });
    const before = record(environment, 0, 3);
    crowd();
    return [...before, ...record(environment, 3, 5), JSON.stringify(environment.saveState())];
  };
  const alone = await trail(() => {});
  const ant = new SharedModel(mujoco, mujocoTasks["Ant-v5"].model);
  const size = (): number => simulations[0].views.qpos.buffer.byteLength;
  const simulations = [keep(new Simulation(ant))];
  const start = size();
  const crowded = await trail(() => {
    while (size() === start && simulations.length < 200) simulations.push(keep(new Simulation(ant)));
  });
  expect(size()).toBeGreaterThan(start);
  expect(crowded).toEqual(alone);
});

test("a batch can be made of them", async () => {
  const create: EnvironmentFactory = await mujocoFactory("Swimmer-v5");
  const [one, other] = [create(0), create(1)];
  expect(one.reset({ seed: 1 })).toEqual(other.reset({ seed: 1 }));
  expect(one.reset({ seed: 2 })).not.toEqual(other.reset({ seed: 3 }));
  // The model that they share outlives the first.
  one.dispose?.();
  other.reset({ seed: 3 });
  const { reward } = other.step([0.1, 0.2]);
  other.dispose?.();
  using alone = await mujocoEnvironment("Swimmer-v5");
  alone.reset({ seed: 3 });
  expect(alone.step([0.1, 0.2]).reward).toBe(reward);
});

test("memory is freed", async () => {
  const create = await mujocoFactory("InvertedDoublePendulum-v5");
  const size = (): number => {
    using probe = create();
    return probe.simulation.views.qpos.buffer.byteLength;
  };
  for (let i = 0; i < 20; i++) create().dispose();
  const start = size();
  // 200 simulations of 1 MB each would not fit otherwise.
  for (let i = 0; i < 200; i++) create().dispose();
  expect(size()).toBe(start);
});

test("after dispose there is an error, not another's memory", async () => {
  const environment = await mujocoEnvironment("Hopper-v5");
  environment.reset();
  environment.dispose();
  environment.dispose();
  expect(() => environment.step([0, 0, 0])).toThrow(BackendError);
  expect(() => environment.reset()).toThrow(BackendError);
  expect(() => environment.saveState()).toThrow(BackendError);
  expect(() => environment.drawing()).toThrow(BackendError);
});

describe("mistakes", () => {
  test("in actions", async () => {
    const environment = await make("HalfCheetah-v5");
    const zero = new Float64Array(6);
    expect(() => environment.step(zero)).toThrow(/HalfCheetah-v5, step 0.*before its first episode/);
    environment.reset();
    environment.step(zero);
    expect(() => environment.step([1])).toThrow(/HalfCheetah-v5, step 2: expected 6 numbers as the action, got 1/);
    expect(() => environment.step(zero.with(2, Number.NaN))).toThrow(EnvironmentError);
    expect(() => (environment as Environment).step(0)).toThrow(EnvironmentError);
  });

  test("a simulation that diverges", async () => {
    for (const name of ["HalfCheetah-v5", "Ant-v5"] as const) {
      const environment = await make(name);
      environment.reset({ seed: 1 });
      const zero = new Float64Array(environment.actionSpace.low.length);
      environment.step(zero);
      const state = environment.saveState() as { velocities: readonly number[] };
      environment.restoreState({ ...state, velocities: state.velocities.map((_, i) => (i % 2 ? 1 : -1) * 1e9) });
      expect(() => {
        for (let step = 0; step < 50; step++) environment.step(zero);
      }, name).toThrow(new RegExp(`${name}, step \\d+: expected a finite state, got one that diverged: (position|velocity) \\d+ is`));
      // A new episode is sound again.
      environment.reset({ seed: 1 });
      expect(Number.isFinite(environment.step(zero).reward)).toBe(true);
    }
  });

  test("in names and options", async () => {
    await expect(mujocoEnvironment("HalfCheeta-v5" as MujocoName)).rejects.toThrow(UsageError);
    await expect(mujocoEnvironment("Hopper-v5", { ctrlCostWeigth: 1 } as object)).rejects.toThrow(/ctrlCostWeigth/);
    await expect(mujocoEnvironment("Hopper-v5", { frameSkip: 0 })).rejects.toThrow(/frameSkip/);
    await expect(mujocoEnvironment("Ant-v5", { mainBody: "hat" })).rejects.toThrow(/"hat"/);
    await expect(mujocoEnvironment("Ant-v5", { mainBody: 99 })).rejects.toThrow(/mainBody/);
    await expect(mujocoEnvironment("Ant-v5", { xml: "<mujoco/>" })).rejects.toThrow(/expected a model with joints/);
    await expect(mujocoEnvironment("Ant-v5", { xml: "<mujoco><what/></mujoco>" })).rejects.toThrow(/option `xml`: expected an MJCF model/);
  });

  test("in first states and saved ones", async () => {
    const environment = await make("Hopper-v5");
    expect(() => environment.reset({ options: { qpos: [1] } })).toThrow(/expected 6 finite numbers in `qpos`/);
    expect(() => environment.reset({ options: { speed: 1 } })).toThrow(/speed/);
    environment.reset();
    const state = environment.saveState();
    expect(() => environment.restoreState({ ...state, positions: [1] })).toThrow(CheckpointError);
    expect(() => environment.restoreState({ ...state, time: "now" })).toThrow(CheckpointError);
    const { random: _, ...rest } = state;
    expect(() => environment.restoreState(rest)).toThrow(CheckpointError);
  });

  test("a package that is absent or does not start", async () => {
    await expect(loadMujoco(() => Promise.reject(new Error("Cannot find package")))).rejects.toThrow(BackendError);
    const broken = loadMujoco(() => Promise.resolve({ default: () => Promise.reject(new Error("no WebAssembly")) }));
    await expect(broken).rejects.toThrow(/expected WebAssembly to start, got no WebAssembly/);
    await expect(broken).rejects.toHaveProperty("hint", expect.stringContaining("npm install @mujoco/mujoco"));
    expect(await loadMujoco()).toBe(mujoco);
  });
});

test("a model of one's own takes the place of the stored one", async () => {
  const xml = `<mujoco><option timestep="0.01"/><worldbody><body><joint type="slide" axis="1 0 0" name="s"/><geom size=".1"/>
    <body><joint type="hinge" axis="0 1 0"/><geom type="capsule" fromto="0 0 0 0 0 1" size=".05"/></body></body></worldbody>
    <actuator><motor joint="s" ctrlrange="-2 2" ctrllimited="true"/></actuator></mujoco>`;
  const environment = await make("InvertedPendulum-v5", { xml });
  expect([...environment.actionSpace.high]).toEqual([2]);
  environment.reset({ options: { qpos: [0, 0.1] } });
  const { observation } = environment.step([0]);
  // It begins to fall.
  expect(observation[1]).toBeGreaterThan(0.1);
  expect(observation[3]).toBeGreaterThan(0);
});

// rl/environments/NAME-v5.json: the MuJoCo environments of gymnasium 1.4.0 with MuJoCo 4.0.0, against MuJoCo 3.14.0 as WebAssembly.
// Trajectories are compared in two ways: run from their first state, and step by step from each stored state. What was measured for the
// stored files (largest difference, relative above 1):
//
// | environment            | first 5 steps | whole run | from each stored state |
// |------------------------|---------------|-----------|------------------------|
// | HalfCheetah            | 8e-14         | 1e-9      | 4e-14                  |
// | Hopper                 | 2e-16         | 5e-15     | 5e-16                  |
// | Walker2d               | 1e-14         | 3e-14     | 2e-14                  |
// | Swimmer                | 4e-16         | 3e-14     | 8e-16                  |
// | Ant                    | 5e-15         | 3e-11     | 5e-14                  |
// | InvertedPendulum       | 0             | 0         | 0                      |
// | InvertedDoublePendulum | 2e-16         | 2e-16     | 1e-16                  |
// | Reacher                | 1e-16         | 2e-16     | 4e-16                  |
//
// Tolerances: 1e-8 over the first 5 steps, then what a first difference of 1e-10 grows to (`growthOf1e10`), a hundredfold; 1e-9 step by step.
// Ant needs MuJoCo 4's integration of rotations (see runge-kutta.ts); with MuJoCo 3's it is 2e-4 after 5 steps.
import { defaultsOf } from "../../../src/base/schema.ts";
import {
  type MujocoEnvironment,
  type MujocoName,
  mujocoEnvironment,
  mujocoTasks,
} from "../../../src/rl/control/environments/mujoco/mujoco-environment.ts";
import type { TaskKind } from "../../../src/rl/control/environments/mujoco/task.ts";
import type { Comparison, Tolerance } from "../compare.ts";
import { asInteger, asList, asNumber, asNumbers, asObject, asObjects, asTexts, type Fields, Malformed, shorten } from "../fields.ts";
import type { GoldenCase, GoldenKind } from "../kind.ts";

const jointTypes = ["free", "ball", "slide", "hinge"];
const constants: Tolerance = { absolute: 1e-12, relative: 1e-12 };
const isName = (name: string): name is MujocoName => Object.hasOwn(mujocoTasks, name);

export const kind: GoldenKind = {
  recognise(folder) {
    return [...folder.files].flatMap((file) => {
      const name = file.replace(/\.json$/, "");
      return isName(name) && file.endsWith(".json") ? [{ name, files: [file], cases: () => casesOf(name, folder.json(file)) }] : [];
    });
  },
};

function casesOf(name: MujocoName, content: unknown): GoldenCase[] {
  const { model, trajectories } = asObject(content, name);
  const kindName = `rl/environments/${name}`;
  const trajectoryCases = asObjects(trajectories, "trajectories").map(
    (fields, index): GoldenCase => ({
      kind: kindName,
      name: shorten(`trajectory ${index} ${JSON.stringify(fields.options)}`),
      run: (comparison) => compareTrajectory(name, fields, comparison),
    }),
  );
  return [
    { kind: kindName, name: "model", run: (comparison) => compareModel(name, asObject(model, "model"), comparison) },
    ...trajectoryCases,
  ];
}

/** The compiled model. Names of bodies and joints are longwave's own: only their number counts. */
async function compareModel(name: MujocoName, stored: Fields, comparison: Comparison): Promise<void> {
  const kind: TaskKind = mujocoTasks[name];
  const defaults = defaultsOf(kind.schema) as { frameSkip: number; maxEpisodeSteps: number };
  using environment = await mujocoEnvironment(name);
  const { model, timestep } = environment.simulation;
  for (const size of ["nq", "nv", "nu"] as const) comparison.exact(size, model[size], asInteger(stored[size], size));
  comparison.exact("bodies", model.nbody, asTexts(stored.bodies, "bodies").length);
  comparison.exact("jointNames", model.njnt, asTexts(stored.jointNames, "jointNames").length);
  const types = Array.from(model.jnt_type, (type) => jointTypes[type]);
  comparison.exact("jointTypes", types, asTexts(stored.jointTypes, "jointTypes"));
  for (const option of ["integrator", "solver", "cone"] as const)
    comparison.exact(option, model.opt[option], asInteger(stored[option], option));
  // The package cannot give flags; in these models the joints with a range are the limited ones.
  const limited = Array.from({ length: model.njnt }, (_, i) => Number(model.jnt_range[2 * i] < model.jnt_range[2 * i + 1]));
  comparison.exact("jointLimited", limited, asList(stored.jointLimited, "jointLimited"));
  comparison.exact("frameSkip", defaults.frameSkip, asInteger(stored.frameSkip, "frameSkip"));
  comparison.exact("maxEpisodeSteps", defaults.maxEpisodeSteps, asInteger(stored.maxEpisodeSteps, "maxEpisodeSteps"));
  comparison.exact("rewardThreshold", kind.rewardThreshold, stored.rewardThreshold);
  comparison.exact("observationSize", environment.observationSpace.low.length, asInteger(stored.observationSize, "observationSize"));
  const numbers: Record<string, ArrayLike<number>> = {
    timestep: [timestep],
    dt: [timestep * defaults.frameSkip],
    gravity: model.opt.gravity,
    viscosity: [model.opt.viscosity],
    density: [model.opt.density],
    bodyMass: model.body_mass,
    bodyInertia: model.body_inertia,
    jointRange: model.jnt_range,
    dofDamping: model.dof_damping,
    dofArmature: model.dof_armature,
    jointStiffness: model.jnt_stiffness,
    gear: model.actuator_gear.filter((_, i) => i % 6 === 0),
    controlRange: model.actuator_ctrlrange,
    initialQpos: model.qpos0,
    initialQvel: new Float64Array(model.nv),
  };
  for (const [key, own] of Object.entries(numbers)) {
    const value = stored[key];
    comparison.numbers(key, own, asNumbers(Array.isArray(value) ? value : [value], key), constants);
  }
}

/** `ctrl_cost_weight` → `ctrlCostWeight` */
const camelCase = (name: string): string => name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());

/** The stored rows of one quantity. */
function rowsOf(fields: Fields, key: string, numSteps: number): (step: number) => readonly number[] {
  const { data, shape } = asNumbers(fields[key], key);
  if (shape[0] !== numSteps) throw new Malformed(`${key}: expected ${numSteps} steps, got ${shape[0]}`);
  const size = shape[1] ?? 1;
  return (step) => Array.from({ length: size }, (_, i) => data[step * size + i]);
}

async function compareTrajectory(name: MujocoName, fields: Fields, comparison: Comparison): Promise<void> {
  const given = Object.entries(asObject(fields.options, "options"));
  const options = Object.fromEntries(given.map(([key, value]) => [camelCase(key), value]));
  using environment = await mujocoEnvironment(name, options);
  const numSteps = asList(fields.actions, "actions").length;
  const [actions, qpos, qvel] = ["actions", "qpos", "qvel"].map((key) => rowsOf(fields, key, numSteps));
  const [firstQpos, firstQvel] = ["initialQpos", "initialQvel"].map((key) => Array.from(asNumbers(fields[key], key).data));
  const compareStep = stepComparison(name, fields, numSteps, environment, comparison);

  const first = environment.reset({ options: { qpos: firstQpos, qvel: firstQvel } });
  comparison.numbers("initialObservation", first, asNumbers(fields.initialObservation, "initialObservation"), { absolute: 1e-9 });
  const toleranceAt = growthTolerance(fields);
  for (let step = 0; step < numSteps; step++) {
    const result = environment.step(actions(step));
    compareStep("run", step, result, toleranceAt(step), true);
    comparison.exact(`run.truncated[${step}]`, Number(result.truncated), asList(fields.truncated, "truncated")[step]);
  }
  // From the stored states. Ant's speed is of where MuJoCo left its bodies in the step before, which is not part of the state.
  for (let step = 0; step < numSteps; step++) {
    environment.reset({
      options: step === 0 ? { qpos: firstQpos, qvel: firstQvel } : { qpos: qpos(step - 1), qvel: qvel(step - 1) },
    });
    compareStep("restart", step, environment.step(actions(step)), 1e-9, name !== "Ant-v5");
  }
}

/** Tolerance after the step of that index. */
function growthTolerance(fields: Fields): (step: number) => number {
  const growth = Array.from(asNumbers(fields.growthOf1e10 ?? [], "growthOf1e10").data);
  return (step) => {
    if (step < 5) return 1e-8;
    // One entry every five steps; without them, nothing is known of what follows.
    if (growth.length === 0) return Number.POSITIVE_INFINITY;
    return Math.max(1e-8, 100 * Math.max(...growth.slice(0, Math.ceil(step / 5) + 1)));
  };
}

type Result = ReturnType<MujocoEnvironment["step"]>;
type CompareStep = (place: string, step: number, result: Result, tolerance: number, withSpeed: boolean) => void;

/** Compares everything that a step gives with what is stored of it. */
function stepComparison(
  name: MujocoName,
  fields: Fields,
  numSteps: number,
  environment: MujocoEnvironment,
  comparison: Comparison,
): CompareStep {
  const [qpos, qvel, observations] = ["qpos", "qvel", "observations"].map((key) => rowsOf(fields, key, numSteps));
  const rewards = asNumbers(fields.rewards, "rewards").data;
  const terminated = asList(fields.terminated, "terminated");
  const infos = Object.entries(asObject(fields.infos, "infos")).map(
    ([key, values]) => [camelCase(key), asNumbers(values, `infos.${key}`).data] as const,
  );
  const ofSpeed = new Set(["xVelocity", "yVelocity", "rewardForward"]);
  return (place, step, result, tolerance, withSpeed) => {
    const { views, timestep } = environment.simulation;
    const close: Tolerance = { absolute: tolerance, relative: tolerance };
    // A difference of places counts this much in a speed.
    const closeSpeed: Tolerance = { absolute: tolerance / timestep, relative: tolerance };
    comparison.numbers(`${place}.qpos[${step}]`, views.qpos, qpos(step), close);
    comparison.numbers(`${place}.qvel[${step}]`, views.qvel, qvel(step), close);
    comparison.numbers(`${place}.observations[${step}]`, result.observation, observations(step), close);
    comparison.exact(`${place}.terminated[${step}]`, Number(result.terminated), terminated[step]);
    const speedTolerance = place === "run" && step >= 5 ? closeSpeed : close;
    for (const [key, values] of infos) {
      const own = result.info?.[key];
      if (typeof own !== "number") throw new Malformed(`infos: ${name} gives no ${key}`);
      if (withSpeed || !ofSpeed.has(key)) comparison.numbers(`${place}.infos.${key}[${step}]`, [own], [values[step]], speedTolerance);
    }
    if (withSpeed) comparison.numbers(`${place}.rewards[${step}]`, [result.reward], [asNumber(rewards[step], "rewards")], speedTolerance);
  };
}

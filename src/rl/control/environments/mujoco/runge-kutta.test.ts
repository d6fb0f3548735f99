// The step for rotations against the closed form of a symmetric top that nothing acts on.
import { beforeAll, expect, test } from "vitest";
import { loadMujoco, type Mujoco } from "./load.ts";
import { SharedModel } from "./shared-model.ts";
import { Simulation } from "./simulation.ts";

let mujoco: Mujoco;
beforeAll(async () => {
  mujoco = await loadMujoco();
});

type Quaternion = readonly [w: number, x: number, y: number, z: number];

const multiply = (a: Quaternion, b: Quaternion): Quaternion => [
  a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3],
  a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2],
  a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1],
  a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0],
];

const turn = ([x, y, z]: readonly number[], time: number): Quaternion => {
  const speed = Math.hypot(x, y, z);
  const half = (speed * time) / 2;
  const scale = Math.sin(half) / speed;
  return [Math.cos(half), scale * x, scale * y, scale * z];
};

const joints = [
  { kind: "free", position: 3, velocity: 3 },
  { kind: "ball", position: 0, velocity: 0 },
];

/** Largest error of the orientation after one second. */
function errorAfterOneSecond(kind: string, timestep: number): number {
  const { position, velocity } = joints.find((joint) => joint.kind === kind) ?? joints[0];
  const xml = `<mujoco><option integrator="RK4" timestep="${timestep}" gravity="0 0 0"/>
    <worldbody><body><joint type="${kind}"/><geom type="box" size=".1 .1 .3"/></body></worldbody></mujoco>`;
  const simulation = new Simulation(new SharedModel(mujoco, xml));
  try {
    const spin = [3, 2, -4];
    simulation.views.qvel.set(spin, velocity);
    simulation.advance(Math.round(1 / timestep));
    const [across, , along] = simulation.model.body_inertia.slice(3, 6);
    // The body turns about its angular momentum, which stands still, and about its own axis (Landau and Lifshitz, Mechanics, § 33, 36).
    const momentum = [spin[0], spin[1], (along / across) * spin[2]];
    const own = [0, 0, (1 - along / across) * spin[2]];
    const expected = multiply(turn(momentum, 1), turn(own, 1));
    const actual = simulation.views.qpos.slice(position, position + 4);
    return Math.max(...expected.map((value, i) => Math.abs(value - actual[i])));
  } finally {
    simulation.dispose();
  }
}

test.each(joints)("a $kind joint is integrated to fourth order", ({ kind }) => {
  const [coarse, middle, fine] = [0.02, 0.01, 0.005].map((timestep) => errorAfterOneSecond(kind, timestep));
  expect(fine).toBeLessThan(1e-8);
  // Halving the step divides the error by 2⁴; a method of second order would divide by 4.
  for (const ratio of [coarse / middle, middle / fine]) expect(ratio).toBeGreaterThan(12);
  for (const ratio of [coarse / middle, middle / fine]) expect(ratio).toBeLessThan(22);
});

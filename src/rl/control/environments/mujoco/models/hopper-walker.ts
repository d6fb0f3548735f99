// The planar one-legged hopper (Erez, Tassa, Todorov 2011, "Infinite-horizon model predictive control for periodic tasks with contacts") and
// the two-legged walker built from the same torso and legs. Numbers as in Gymnasium's hopper.xml and walker2d_v5.xml.
import { type Attributes, body, capsuleAt, ground, hinge, modelOf, motor, slide, toneGroups } from "../mjcf.ts";

// Heights above the floor of a figure that stands upright.
const center = 1.25;
const top = 1.45;
const hip = 1.05;
const knee = 0.6;
const ankle = 0.1;
const middleOfShin = (knee + ankle) / 2;

const loose = { limited: false, armature: 0, damping: 0, stiffness: 0 };
const lying = { axisangle: [0, 1, 0, -90] };

interface Figure {
  /** Of every leg joint. */
  readonly joint: Attributes;
  readonly geom: Attributes;
  /** The second and third coefficient of friction. */
  readonly rolling: readonly [torsional: number, rolling: number];
  readonly foot: { readonly x: number; readonly halfLength: number; readonly friction: number };
}

/** @param suffix tells the joints of a second leg from the first's. */
function leg({ joint, geom, rolling, foot }: Figure, suffix: string, group: number): string {
  const skin = (friction: number): Attributes => ({ ...geom, group, friction: [friction, ...rolling] });
  const bend = (name: string, low: number, high: number, at: readonly number[]): string =>
    hinge(name + suffix, [0, -1, 0], { ...joint, limited: true, range: [low, high], pos: at });
  return body(
    `thigh${suffix}`,
    [0, 0, hip - center],
    bend("hip", -150, 0, [0, 0, 0]),
    capsuleAt([0, 0, (hip + knee) / 2 - hip], 0.05, (hip - knee) / 2, skin(0.9)),
    body(
      `shin${suffix}`,
      [0, 0, middleOfShin - hip],
      bend("knee", -150, 0, [0, 0, knee - middleOfShin]),
      capsuleAt([0, 0, 0], 0.04, (knee - ankle) / 2, skin(0.9)),
      body(
        `foot${suffix}`,
        [foot.x, 0, -middleOfShin],
        bend("ankle", -45, 45, [-foot.x, 0, ankle]),
        capsuleAt([-foot.x / 2, 0, ankle], 0.06, foot.halfLength, { ...skin(foot.friction), ...lying }),
      ),
    ),
  );
}

function figure(name: string, parts: Figure, floor: Attributes, gear: number, legs: readonly { suffix: string; group: number }[]): string {
  return modelOf({
    name,
    angle: "degree",
    option: { integrator: "RK4", timestep: 0.002 },
    world: [
      ground(floor),
      body(
        "torso",
        [0, 0, center],
        slide("x", [1, 0, 0], loose),
        // The height counts from the floor.
        slide("z", [0, 0, 1], { ...loose, ref: center }),
        hinge("pitch", [0, 1, 0], loose),
        capsuleAt([0, 0, 0], 0.05, top - center, { ...parts.geom, group: toneGroups.body, friction: [0.9, ...parts.rolling] }),
        ...legs.map(({ suffix, group }) => leg(parts, suffix, group)),
      ),
    ],
    motors: legs.flatMap(({ suffix }) => ["hip", "knee", "ankle"].map((joint) => motor(joint + suffix, gear))),
  });
}

const hopperContact = { contype: 1, conaffinity: 1, margin: 0.001, solref: [0.02, 1], solimp: [0.8, 0.8, 0.01] };

export const hopperModel = figure(
  "hopper",
  {
    joint: { armature: 1, damping: 1 },
    geom: { ...hopperContact, condim: 1 },
    rolling: [0.005, 0.0001],
    foot: { x: 0.13, halfLength: 0.195, friction: 2 },
  },
  { ...hopperContact, condim: 3 },
  200,
  [{ suffix: "", group: toneGroups.limb }],
);

export const walkerModel = figure(
  "walker",
  {
    joint: { armature: 0.01, damping: 0.1 },
    // Legs touch the floor, never each other.
    geom: { contype: 1, conaffinity: 0, condim: 3, density: 1000 },
    rolling: [0.1, 0.1],
    foot: { x: 0.2, halfLength: 0.1, friction: 1.9 },
  },
  { contype: 1, conaffinity: 1, condim: 3, friction: [0.7, 0.1, 0.1] },
  100,
  [
    { suffix: "", group: toneGroups.limb },
    { suffix: " left", group: toneGroups.far },
  ],
);

// The planar cheetah of Wawrzynski (2009, "A cat-like robot real-time learning to run"): a torso with a head and two legs of three segments
// on a floor. Numbers as in Gymnasium's half_cheetah.xml.
import { body, capsule, capsuleAt, ground, hinge, modelOf, motor, slide, toneGroups } from "../mjcf.ts";

const radius = 0.046;
const contact = { condim: 3, friction: [0.4, 0.1, 0.1], solref: [0.02, 1], solimp: [0, 0.8, 0.01] };
/** Bodies touch the floor, never each other. */
const skin = { ...contact, contype: 1, conaffinity: 0 };
const loose = { limited: false, armature: 0, damping: 0, stiffness: 0 };

interface Segment {
  readonly name: string;
  /** Its joint in the frame of the segment above. */
  readonly x: number;
  readonly z: number;
  readonly range: readonly [low: number, high: number];
  readonly stiffness: number;
  readonly damping: number;
  /** Of its motor. */
  readonly gear: number;
  /** Centre, half length and inclination of its capsule. */
  readonly center: readonly [x: number, z: number];
  readonly halfLength: number;
  readonly angle: number;
}

const backLeg: readonly Segment[] = [
  {
    name: "back thigh",
    ...{ x: -0.5, z: 0, range: [-0.52, 1.05], stiffness: 240, damping: 6, gear: 120 },
    ...{ center: [0.1, -0.13], halfLength: 0.145, angle: -3.8 },
  },
  {
    name: "back shin",
    ...{ x: 0.16, z: -0.25, range: [-0.785, 0.785], stiffness: 180, damping: 4.5, gear: 90 },
    ...{ center: [-0.14, -0.07], halfLength: 0.15, angle: -2.03 },
  },
  {
    name: "back foot",
    ...{ x: -0.28, z: -0.14, range: [-0.4, 0.785], stiffness: 120, damping: 3, gear: 60 },
    ...{ center: [0.03, -0.097], halfLength: 0.094, angle: -0.27 },
  },
];

const frontLeg: readonly Segment[] = [
  {
    name: "front thigh",
    ...{ x: 0.5, z: 0, range: [-1, 0.7], stiffness: 180, damping: 4.5, gear: 120 },
    ...{ center: [-0.07, -0.12], halfLength: 0.133, angle: 0.52 },
  },
  {
    name: "front shin",
    ...{ x: -0.14, z: -0.24, range: [-1.2, 0.87], stiffness: 120, damping: 3, gear: 60 },
    ...{ center: [0.065, -0.09], halfLength: 0.106, angle: -0.6 },
  },
  {
    name: "front foot",
    ...{ x: 0.13, z: -0.18, range: [-0.5, 0.5], stiffness: 60, damping: 1.5, gear: 30 },
    ...{ center: [0.045, -0.07], halfLength: 0.07, angle: -0.6 },
  },
];

/** Segments hang from each other in their order. */
function leg([segment, ...below]: readonly Segment[], group: number): string {
  const { name, x, z, range, stiffness, damping, center, halfLength, angle } = segment;
  return body(
    name,
    [x, 0, z],
    hinge(name, [0, 1, 0], {
      limited: true,
      range,
      stiffness,
      damping,
      armature: 0.1,
      solreflimit: [0.02, 1],
      solimplimit: [0, 0.8, 0.03],
    }),
    capsuleAt([center[0], 0, center[1]], radius, halfLength, { ...skin, group, axisangle: [0, 1, 0, angle] }),
    ...(below.length > 0 ? [leg(below, group)] : []),
  );
}

export const halfCheetahModel = modelOf({
  name: "half cheetah",
  angle: "radian",
  option: { gravity: [0, 0, -9.81], timestep: 0.01 },
  totalMass: 14,
  world: [
    ground({ ...contact, contype: 1, conaffinity: 1 }),
    body(
      "torso",
      [0, 0, 0.7],
      slide("x", [1, 0, 0], loose),
      slide("z", [0, 0, 1], loose),
      hinge("pitch", [0, 1, 0], loose),
      capsule([-0.5, 0, 0], [0.5, 0, 0], radius, { ...skin, group: toneGroups.body }),
      capsuleAt([0.6, 0, 0.1], radius, 0.15, { ...skin, group: toneGroups.body, axisangle: [0, 1, 0, 0.87] }),
      leg(backLeg, toneGroups.far),
      leg(frontLeg, toneGroups.limb),
    ),
  ],
  motors: [...backLeg, ...frontLeg].map(({ name, gear }) => motor(name, gear)),
});

// The four-legged ant of Schulman et al. (2015, "High-dimensional continuous control using generalized advantage estimation"): a sphere with
// four legs, each a fixed stub, a segment that swings about the vertical, and one that bends. Numbers as in Gymnasium's ant.xml.
import { body, capsule, free, ground, hinge, modelOf, motor, sphere, toneGroups } from "../mjcf.ts";

const contact = { contype: 1, condim: 3, friction: [1, 0.5, 0.5], margin: 0.01 };
/** The ant touches the floor, never itself. */
const skin = { ...contact, conaffinity: 0, density: 5 };
const joint = { armature: 1, damping: 1, limited: true };
const thickness = 0.08;

/** Where each leg points, and which way its ankle bends: the sign turns the bend towards the floor. */
const legs = [
  { name: "front left", x: 1, y: 1, axis: [-1, 1, 0], sign: 1 },
  { name: "front right", x: -1, y: 1, axis: [1, 1, 0], sign: -1 },
  { name: "back left", x: -1, y: -1, axis: [-1, 1, 0], sign: -1 },
  { name: "back right", x: 1, y: -1, axis: [1, 1, 0], sign: 1 },
] as const;

function leg({ name, x, y, axis, sign }: (typeof legs)[number]): string {
  const segment = (length: number): string =>
    capsule([0, 0, 0], [length * x, length * y, 0], thickness, { ...skin, group: y > 0 ? toneGroups.limb : toneGroups.far });
  return body(
    `${name} stub`,
    [0, 0, 0],
    segment(0.2),
    body(
      `${name} upper`,
      [0.2 * x, 0.2 * y, 0],
      hinge(`${name} hip`, [0, 0, 1], { ...joint, range: [-30, 30] }),
      segment(0.2),
      body(
        `${name} lower`,
        [0.2 * x, 0.2 * y, 0],
        hinge(`${name} ankle`, axis, { ...joint, range: sign > 0 ? [30, 70] : [-70, -30] }),
        segment(0.4),
      ),
    ),
  );
}

export const antModel = modelOf({
  name: "ant",
  angle: "degree",
  option: { integrator: "RK4", timestep: 0.01 },
  world: [
    ground({ ...contact, conaffinity: 1 }),
    body("torso", [0, 0, 0.75], sphere(0.25, { ...skin, group: toneGroups.body }), free("root"), ...legs.map(leg)),
  ],
  // The last leg's motors come first.
  motors: [legs[3], legs[0], legs[1], legs[2]].flatMap(({ name }) => [motor(`${name} hip`, 150), motor(`${name} ankle`, 150)]),
});

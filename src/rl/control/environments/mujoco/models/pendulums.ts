// One pole, or two in a chain, on a cart that a motor pushes along a rail. Numbers as in Gymnasium's inverted_pendulum.xml and
// inverted_double_pendulum.xml. Nothing collides.
import { body, capsule, capsuleAt, hinge, modelOf, motor, site, slide, toneGroups } from "../mjcf.ts";

const ghost = { contype: 0, friction: [1, 0.1, 0.1] };
/** Along x; the compiler normalises the quaternion. */
const lying = { quat: [1, 0, 1, 0] };
const cart = capsuleAt([0, 0, 0], 0.1, 0.1, { ...ghost, ...lying, group: toneGroups.body });

export const pendulumModel = modelOf({
  name: "inverted pendulum",
  angle: "degree",
  option: { gravity: [0, 0, -9.81], integrator: "RK4", timestep: 0.02 },
  isGhost: true,
  world: [
    body(
      "cart",
      [0, 0, 0],
      slide("slider", [1, 0, 0], { armature: 0, damping: 1, limited: true, range: [-1, 1] }),
      cart,
      body(
        "pole",
        [0, 0, 0],
        hinge("hinge", [0, 1, 0], { armature: 0, damping: 1, limited: true, range: [-90, 90] }),
        // It leans a little, so that standing still does not do.
        capsule([0, 0, 0], [0.001, 0, 0.6], 0.049, { ...ghost, group: toneGroups.limb }),
      ),
    ),
  ],
  motors: [motor("slider", 100, 3)],
});

const damping = 0.05;
const length = 0.6;
const pole = capsule([0, 0, 0], [0, 0, length], 0.045, { ...ghost, group: toneGroups.limb });

export const doublePendulumModel = modelOf({
  name: "inverted double pendulum",
  angle: "degree",
  option: { gravity: [1e-5, 0, -9.81], integrator: "RK4", timestep: 0.01 },
  isGhost: true,
  world: [
    body(
      "cart",
      [0, 0, 0],
      slide("slider", [1, 0, 0], { damping, limited: true, margin: 0.01, range: [-1, 1] }),
      cart,
      body(
        "lower pole",
        [0, 0, 0],
        hinge("lower hinge", [0, 1, 0], { damping }),
        pole,
        body("upper pole", [0, 0, length], hinge("upper hinge", [0, 1, 0], { damping }), pole, site("tip", [0, 0, length])),
      ),
    ),
  ],
  motors: [motor("slider", 500)],
});

// Three links in a viscous fluid (Coulom 2002, "Reinforcement learning using neural networks, with applications to motor control"), moving in
// a plane. Numbers as in Gymnasium's swimmer.xml.
import { body, capsule, hinge, modelOf, motor, slide, toneGroups } from "../mjcf.ts";

const armature = 0.1;
const bend = { armature, limited: true, range: [-100, 100] };
/** Nothing collides. */
const skin = { contype: 0, conaffinity: 0, condim: 1, density: 1000 };

export const swimmerModel = modelOf({
  name: "swimmer",
  angle: "degree",
  option: { integrator: "RK4", timestep: 0.01, density: 4000, viscosity: 0.1 },
  isGhost: true,
  world: [
    body(
      "head",
      [0, 0, 0],
      slide("x", [1, 0, 0], { armature }),
      slide("y", [0, 1, 0], { armature }),
      hinge("yaw", [0, 0, 1], { armature }),
      capsule([1.5, 0, 0], [0.5, 0, 0], 0.1, { ...skin, group: toneGroups.body }),
      body(
        "middle",
        [0.5, 0, 0],
        hinge("first", [0, 0, 1], bend),
        capsule([0, 0, 0], [-1, 0, 0], 0.1, { ...skin, group: toneGroups.limb }),
        body(
          "tail",
          [-1, 0, 0],
          hinge("second", [0, 0, 1], bend),
          capsule([0, 0, 0], [-1, 0, 0], 0.1, { ...skin, group: toneGroups.limb }),
        ),
      ),
    ),
  ],
  motors: [motor("first", 150), motor("second", 150)],
});

// An arm of two links in a plane that reaches for a target; the target is a body of its own, without a motor. Numbers as in Gymnasium's
// reacher.xml. Nothing collides.
import { type Attributes, body, capsule, hinge, modelOf, motor, slide, sphere, toneGroups } from "../mjcf.ts";

const ghost = { contype: 0, friction: [1, 0.1, 0.1] };
const joint = { armature: 1, damping: 1 };
const link = capsule([0, 0, 0], [0.1, 0, 0], 0.01, { ...ghost, group: toneGroups.limb });
/** The target's place is its joint's value: `ref` takes back where the body stands. */
const target = (ref: number): Attributes => ({
  armature: 0,
  damping: 0,
  stiffness: 0,
  limited: true,
  range: [-0.27, 0.27],
  ref,
});

export const reacherModel = modelOf({
  name: "reacher",
  angle: "radian",
  option: { gravity: [0, 0, -9.81], integrator: "RK4", timestep: 0.01 },
  isGhost: true,
  world: [
    body(
      "upper arm",
      [0, 0, 0.01],
      link,
      hinge("shoulder", [0, 0, 1], { ...joint, limited: false }),
      body(
        "lower arm",
        [0.1, 0, 0],
        hinge("elbow", [0, 0, 1], { ...joint, limited: true, range: [-3, 3] }),
        link,
        body("fingertip", [0.11, 0, 0], sphere(0.01, { ...ghost, group: toneGroups.body })),
      ),
    ),
    body(
      "target",
      [0.1, -0.1, 0.01],
      slide("target x", [1, 0, 0], target(0.1)),
      slide("target y", [0, 1, 0], target(-0.1)),
      sphere(0.009, { ...ghost, conaffinity: 0, group: toneGroups.goal }),
    ),
  ],
  motors: [motor("shoulder", 200), motor("elbow", 200)],
});

// Draws a simulation as a stick figure: capsules as thick lines, spheres as circles, seen from the side or from above.
import { circle, type Drawing, line, type Point, type Shape, type Tone } from "../../drawing.ts";
import { toneGroups } from "./mjcf.ts";
import type { Simulation } from "./simulation.ts";
import type { Scene } from "./task.ts";

const tones: readonly Tone[] = (() => {
  const list: Tone[] = [];
  list[toneGroups.body] = "ink";
  list[toneGroups.limb] = "accent";
  list[toneGroups.far] = "muted";
  list[toneGroups.goal] = "good";
  return list;
})();

// MuJoCo's numbers of kinds of geoms.
const plane = 0;
const sphere = 2;
const capsule = 3;
const cylinder = 5;

/** Shapes in the unit box; the window goes with the figure where the scene says so. */
export function drawFigure(simulation: Simulation, scene: Scene): Drawing {
  const { model } = simulation;
  const { places, axes } = simulation.geoms();
  const second = scene.from === "side" ? 2 : 1;
  const kinds = model.geom_type;
  const sizes = model.geom_size;
  const groups = model.geom_group;
  const bounds = model.geom_rbound;
  const leader = kinds.findIndex((kind) => kind !== plane);
  const middle = [...scene.center];
  if (scene.follows && leader >= 0) middle[0] = places[3 * leader];
  if (scene.follows === "xy" && leader >= 0) middle[1] = places[3 * leader + second];
  const toBox = (across: number, up: number): Point => [0.5 + (across - middle[0]) / scene.size, 0.5 + (up - middle[1]) / scene.size];

  const shapes: Shape[] = [...landmarks(scene, middle, kinds.includes(plane), toBox)];
  // Those far from the eye come first: large y from the side, small z from above.
  const order = [...kinds.keys()].filter((geom) => kinds[geom] !== plane);
  const nearness = (geom: number): number => (groups[geom] === toneGroups.far ? -1 : 0);
  order.sort((a, b) => nearness(a) - nearness(b));
  for (const geom of order) {
    const [x, y] = [places[3 * geom], places[3 * geom + second]];
    const tone = tones[groups[geom]] ?? "ink";
    const radius = sizes[3 * geom];
    if (kinds[geom] === capsule || kinds[geom] === cylinder) {
      // The third column of the orientation is the axis.
      const halfLength = sizes[3 * geom + 1];
      const dx = halfLength * axes[9 * geom + 2];
      const dy = halfLength * axes[9 * geom + 3 * second + 2];
      shapes.push(line(toBox(x - dx, y - dy), toBox(x + dx, y + dy), tone, (2 * radius) / scene.size));
    } else shapes.push(circle(toBox(x, y), (kinds[geom] === sphere ? radius : bounds[geom]) / scene.size, tone));
  }
  return { shapes };
}

/** What stands still, so that motion can be seen: the floor with a mark at every metre, or a grid of dots, and the scene's own lines. */
function landmarks(scene: Scene, middle: readonly number[], hasFloor: boolean, toBox: (across: number, up: number) => Point): Shape[] {
  const shapes: Shape[] = [];
  const half = scene.size / 2;
  for (const [from, to] of scene.lines ?? []) shapes.push(line(toBox(...from), toBox(...to), "muted", 0.006));
  const metres = (center: number): number[] => {
    const first = Math.ceil(center - half);
    return Array.from({ length: Math.floor(center + half) - first + 1 }, (_, i) => first + i);
  };
  if (scene.from === "side" && hasFloor) {
    shapes.push(line(toBox(middle[0] - half, 0), toBox(middle[0] + half, 0), "muted", 0.006));
    for (const x of metres(middle[0])) shapes.push(line(toBox(x, 0), toBox(x, -0.06), "muted", 0.006));
  } else if (scene.follows === "xy")
    for (const x of metres(middle[0])) for (const y of metres(middle[1])) shapes.push(circle(toBox(x, y), 0.004, "muted"));
  return shapes;
}

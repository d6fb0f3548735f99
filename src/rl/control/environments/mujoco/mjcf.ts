// Writes MJCF, MuJoCo's model format, from calls that nest as the bodies do. Only what the models here need.

type Attribute = string | number | boolean | readonly number[];
export type Attributes = Readonly<Record<string, Attribute>>;
export type Vector = readonly [x: number, y: number, z: number];

function element(tag: string, attributes: Attributes, children: readonly string[] = []): string {
  const written = Object.entries(attributes).map(([name, value]) => ` ${name}="${typeof value === "object" ? value.join(" ") : value}"`);
  return children.length === 0 ? `<${tag}${written.join("")}/>` : `<${tag}${written.join("")}>${children.join("")}</${tag}>`;
}

/** What a geom means in drawings; MuJoCo's geom groups, which physics ignores. */
export const toneGroups = { body: 0, limb: 1, far: 2, goal: 3 } as const;

/** @param at place of its frame in the enclosing body's. */
export const body = (name: string, at: Vector, ...children: readonly string[]): string => element("body", { name, pos: at }, children);

export const hinge = (name: string, axis: Vector, attributes: Attributes = {}): string =>
  element("joint", { name, type: "hinge", axis, ...attributes });

export const slide = (name: string, axis: Vector, attributes: Attributes = {}): string =>
  element("joint", { name, type: "slide", axis, ...attributes });

export const free = (name: string): string => element("joint", { name, type: "free", limited: false, armature: 0, damping: 0 });

/** A capsule between two points. */
export const capsule = (from: Vector, to: Vector, radius: number, attributes: Attributes = {}): string =>
  element("geom", { type: "capsule", fromto: [...from, ...to], size: radius, ...attributes });

/** A capsule by its centre; its axis is z unless an orientation (`quat`, `axisangle`) is among the attributes. */
export const capsuleAt = (center: Vector, radius: number, halfLength: number, attributes: Attributes = {}): string =>
  element("geom", { type: "capsule", pos: center, size: [radius, halfLength], ...attributes });

export const sphere = (radius: number, attributes: Attributes = {}): string =>
  element("geom", { type: "sphere", size: radius, ...attributes });

/** The plane z = 0. */
export const ground = (attributes: Attributes): string => element("geom", { type: "plane", size: [40, 40, 40], ...attributes });

export const site = (name: string, at: Vector): string => element("site", { name, pos: at, size: 0.01 });

/** A torque or force of `gear` times the control, which is clamped to ±`limit`. */
export const motor = (joint: string, gear: number, limit = 1): string =>
  element("motor", { name: joint, joint, gear, ctrllimited: true, ctrlrange: [-limit, limit] });

export interface ModelParts {
  readonly name: string;
  /** Unit of angles in the parts below. */
  readonly angle: "radian" | "degree";
  /** Attributes of `<option>`: timestep, integrator, gravity, fluid. */
  readonly option: Attributes;
  /** Nothing can touch anything, so that contacts need not be looked for. */
  readonly isGhost?: boolean;
  /** The bodies' masses are scaled to this sum. */
  readonly totalMass?: number;
  readonly world: readonly string[];
  readonly motors: readonly string[];
}

/** Masses and inertias follow from the shapes and densities of the geoms. */
export function modelOf({ name, angle, option, isGhost = false, totalMass, world, motors }: ModelParts): string {
  return element("mujoco", { model: name }, [
    element("compiler", { angle, inertiafromgeom: true, ...(totalMass === undefined ? {} : { settotalmass: totalMass }) }),
    // Contacts and constraints of these models take about 20 kB; MuJoCo would reserve 13 MB for each environment.
    element("size", { memory: "1M" }),
    element("option", option, [
      // One figure is one island: looking for more takes a tenth of a step and changes no bit. The same goes for contacts of ghosts.
      element("flag", { island: "disable", ...(isGhost ? { contact: "disable" } : {}) }),
    ]),
    element("worldbody", {}, world),
    element("actuator", {}, motors),
  ]);
}

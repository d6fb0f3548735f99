// One MuJoCo model with its state. Views of WebAssembly memory are kept, since MuJoCo's properties make a new one at every access; they are
// renewed when the memory has grown (it then detaches them).
import { BackendError, CheckpointError, UsageError } from "../../../../base/errors.ts";
import type { JsonRecord } from "../../../../engine/events.ts";
import { savedNumbers } from "../native-environment.ts";
import type { Mujoco, MujocoData, MujocoModel } from "./load.ts";
import { RotationRungeKutta } from "./runge-kutta.ts";
import type { SharedModel } from "./shared-model.ts";

type Views = Pick<
  MujocoData,
  "qpos" | "qvel" | "act" | "ctrl" | "qacc" | "qacc_warmstart" | "xpos" | "site_xpos" | "cfrc_ext" | "qfrc_constraint"
>;

const viewNames = ["qpos", "qvel", "act", "ctrl", "qacc", "qacc_warmstart", "xpos", "site_xpos", "cfrc_ext", "qfrc_constraint"] as const;

/** MuJoCo calls larger numbers a diverged simulation. */
const largest = 1e10;
const rungeKutta = 1;

/** Owns WebAssembly memory: about 1 MB for each simulation of the models here. */
export class Simulation {
  readonly model: MujocoModel;
  readonly numPositions: number;
  readonly numVelocities: number;
  readonly numControls: number;
  readonly numBodies: number;
  /** Seconds. */
  readonly timestep: number;
  readonly #shared: SharedModel;
  readonly #mujoco: Mujoco;
  readonly #data: MujocoData;
  readonly #rotating: RotationRungeKutta | undefined;
  #views: Views;

  /** @throws UsageError for a model that MuJoCo cannot compile. */
  constructor(shared: SharedModel) {
    this.#shared = shared;
    this.#mujoco = shared.mujoco;
    this.model = shared.acquire();
    const { model } = this;
    this.numPositions = model.nq;
    this.numVelocities = model.nv;
    this.numControls = model.nu;
    this.numBodies = model.nbody;
    this.timestep = model.opt.timestep;
    this.#data = new shared.mujoco.MjData(model);
    this.#views = this.#mapViews();
    const quaternions: { position: number; velocity: number }[] = [];
    for (let joint = 0; joint < model.njnt; joint++) {
      const type = model.jnt_type[joint];
      // A free joint begins with three coordinates of its place.
      const skip = type === 0 ? 3 : 0;
      if (type < 2) quaternions.push({ position: model.jnt_qposadr[joint] + skip, velocity: model.jnt_dofadr[joint] + skip });
    }
    if (model.opt.integrator === rungeKutta && quaternions.length > 0 && model.na === 0)
      this.#rotating = new RotationRungeKutta(model, quaternions);
  }

  /** @throws BackendError after `dispose`. Names and units as in MuJoCo's mjData; read or write them before the next call. */
  get views(): Views {
    if (this.#views.qpos.length === 0) this.#views = this.#mapViews();
    return this.#views;
  }

  #mapViews(): Views {
    if (this.#data.isDeleted()) throw new BackendError("simulation: expected one in use, got one that was disposed");
    return Object.fromEntries(viewNames.map((name) => [name, this.#data[name]])) as unknown as Views;
  }

  /** @throws UsageError when the model has no body of that name. */
  bodyNumber(name: string): number {
    const number = this.#mujoco.mj_name2id(this.model, this.#mujoco.mjtObj.mjOBJ_BODY.value, name);
    if (number < 0) throw new UsageError(`body: expected one of the model, got "${name}"`);
    return number;
  }

  /** Sets the model's own first state, with nothing computed of it. */
  clear(): void {
    this.views;
    this.#mujoco.mj_resetData(this.model, this.#data);
  }

  /** Computes everything that follows from the state (places of bodies, contacts, accelerations). */
  forward(): void {
    this.#mujoco.mj_forward(this.model, this.#data);
  }

  /** Moves on by `count` steps of the model's timestep, under the controls in `views.ctrl`. */
  advance(count: number): void {
    const mujoco = this.#mujoco;
    const data = this.#data;
    if (this.#rotating) for (let i = 0; i < count; i++) this.#rotating.step(mujoco, data, this.views);
    else for (let i = 0; i < count; i++) mujoco.mj_step(this.model, data);
  }

  /** Computes `views.cfrc_ext`: the forces and torques of contacts on each body. */
  computeContactForces(): void {
    this.#mujoco.mj_rnePostConstraint(this.model, this.#data);
  }

  /** What is wrong with the state, in words; undefined when all of it is finite and of a sensible size. */
  broken(): string | undefined {
    const { qpos, qvel } = this.views;
    for (let i = 0; i < qpos.length; i++) if (!(Math.abs(qpos[i]) <= largest)) return `position ${i} is ${qpos[i]}`;
    for (let i = 0; i < qvel.length; i++) if (!(Math.abs(qvel[i]) <= largest)) return `velocity ${i} is ${qvel[i]}`;
    return undefined;
  }

  /** Places and orientations of all geoms in the present state, as copies: [geoms, 3] and [geoms, 9]. */
  geoms(): { places: Float64Array; axes: Float64Array } {
    this.views;
    this.#mujoco.mj_kinematics(this.model, this.#data);
    return { places: this.#data.geom_xpos.slice(), axes: this.#data.geom_xmat.slice() };
  }

  /** Everything that decides what follows. */
  save(): JsonRecord {
    const { qpos, qvel, act, ctrl, qacc_warmstart } = this.views;
    return {
      positions: [...qpos],
      velocities: [...qvel],
      activations: [...act],
      controls: [...ctrl],
      warmStart: [...qacc_warmstart],
      time: this.#data.time,
    };
  }

  /** @throws CheckpointError for the state of another model. */
  restore(state: JsonRecord): void {
    const { nq, nv, na, nu } = this.model;
    const positions = savedNumbers(state, "positions", nq);
    const velocities = savedNumbers(state, "velocities", nv);
    const activations = savedNumbers(state, "activations", na);
    const controls = savedNumbers(state, "controls", nu);
    const warmStart = savedNumbers(state, "warmStart", nv);
    if (typeof state.time !== "number") throw new CheckpointError("simulation: expected `time` in its state, got none");
    this.clear();
    const { views } = this;
    views.qpos.set(positions);
    views.qvel.set(velocities);
    views.act.set(activations);
    views.ctrl.set(controls);
    views.qacc_warmstart.set(warmStart);
    this.#data.time = state.time;
    this.forward();
  }

  /** Frees the memory. May be called again. */
  dispose(): void {
    if (this.#data.isDeleted()) return;
    this.#data.delete();
    this.#shared.release();
    // Whoever asks for views now gets the error rather than the memory of others.
    this.#views = { ...this.#views, qpos: new Float64Array(0) };
  }
}

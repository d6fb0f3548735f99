// Loads MuJoCo's WebAssembly build (@mujoco/mujoco, single-threaded) when it is first asked for. Only what is used here is typed.
import { BackendError } from "../../../../base/errors.ts";

/** A view of WebAssembly memory. It is detached (length 0) when that memory grows. */
type View = Float64Array;

interface Handle {
  /** Frees the memory; the handle must not be used afterwards. */
  delete(): void;
  isDeleted(): boolean;
}

/** Compiled constants; names as in MuJoCo's mjModel. Matrices are row-major. */
export interface MujocoModel extends Handle {
  readonly nq: number;
  readonly nv: number;
  readonly nu: number;
  readonly na: number;
  readonly nbody: number;
  readonly njnt: number;
  readonly ngeom: number;
  readonly nsite: number;
  readonly opt: {
    readonly timestep: number;
    /** 0 Euler, 1 Runge-Kutta. */
    readonly integrator: number;
    readonly solver: number;
    readonly cone: number;
    readonly density: number;
    readonly viscosity: number;
    readonly gravity: View;
    disableflags: number;
  };
  readonly qpos0: View;
  readonly body_mass: View;
  readonly body_inertia: View;
  /** 0 free, 1 ball, 2 slide, 3 hinge. */
  readonly jnt_type: Int32Array;
  readonly jnt_qposadr: Int32Array;
  readonly jnt_dofadr: Int32Array;
  readonly jnt_range: View;
  readonly jnt_stiffness: View;
  readonly dof_damping: View;
  readonly dof_armature: View;
  /** [nu, 6] */
  readonly actuator_gear: View;
  readonly actuator_ctrlrange: View;
  /** 0 plane, 2 sphere, 3 capsule, 5 cylinder; others are not drawn in detail. */
  readonly geom_type: Int32Array;
  readonly geom_size: View;
  readonly geom_rbound: View;
  readonly geom_group: Int32Array;
}

/** The state and what was computed from it; names as in MuJoCo's mjData. Every access makes a new view. */
export interface MujocoData extends Handle {
  time: number;
  readonly qpos: View;
  readonly qvel: View;
  readonly act: View;
  readonly ctrl: View;
  readonly qacc: View;
  readonly qacc_warmstart: View;
  readonly xpos: View;
  readonly site_xpos: View;
  readonly geom_xpos: View;
  readonly geom_xmat: View;
  readonly cfrc_ext: View;
  readonly qfrc_constraint: View;
}

export interface Mujoco {
  readonly MjModel: { from_xml_string(xml: string): MujocoModel };
  readonly MjData: new (model: MujocoModel) => MujocoData;
  readonly mjtDisableBit: { readonly mjDSBL_AUTORESET: { readonly value: number } };
  readonly mjtObj: { readonly mjOBJ_BODY: { readonly value: number } };
  mj_versionString(): string;
  mj_resetData(model: MujocoModel, data: MujocoData): void;
  mj_forward(model: MujocoModel, data: MujocoData): void;
  mj_forwardSkip(model: MujocoModel, data: MujocoData, stage: number, skipSensors: number): void;
  mj_step(model: MujocoModel, data: MujocoData): void;
  mj_kinematics(model: MujocoModel, data: MujocoData): void;
  mj_rnePostConstraint(model: MujocoModel, data: MujocoData): void;
  /** −1 when there is none of that name. */
  mj_name2id(model: MujocoModel, kind: number, name: string): number;
}

/** What `import("@mujoco/mujoco")` gives. */
export interface MujocoPackage {
  readonly default: (options: Readonly<Record<string, unknown>>) => Promise<unknown>;
}

let loaded: Promise<Mujoco> | undefined;

/**
 * MuJoCo, loaded once in each thread (10 MB of WebAssembly, about 0.3 s).
 * @param importPackage for tests; such a result is not kept.
 * @throws BackendError when the package is absent or cannot be started.
 */
export function loadMujoco(importPackage?: () => Promise<MujocoPackage>): Promise<Mujoco> {
  if (importPackage) return start(importPackage);
  loaded ??= start(() => import("@mujoco/mujoco")).catch((error: unknown) => {
    // A later call may find the package installed.
    loaded = undefined;
    throw error;
  });
  return loaded;
}

async function start(importPackage: () => Promise<MujocoPackage>): Promise<Mujoco> {
  let mujoco: MujocoPackage;
  try {
    mujoco = await importPackage();
  } catch (cause) {
    throw new BackendError("@mujoco/mujoco: expected the package to be installed, got none that can be imported", {
      cause,
      hint: "Run `npm install @mujoco/mujoco`.",
    });
  }
  // Warnings would go to the console; what they warn of is checked after every step.
  const silent = (): void => {};
  try {
    return (await mujoco.default({ print: silent, printErr: silent })) as Mujoco;
  } catch (cause) {
    throw new BackendError(`@mujoco/mujoco: expected WebAssembly to start, got ${String((cause as Error)?.message ?? cause)}`, {
      cause,
      hint: "Reinstall the package with `npm install @mujoco/mujoco`, and allow WebAssembly and about 30 MB of memory.",
    });
  }
}

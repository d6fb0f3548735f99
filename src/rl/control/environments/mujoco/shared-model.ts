// A compiled model that the simulations of one kind share: compiling takes many times as long as making a simulation.
import { UsageError } from "../../../../base/errors.ts";
import type { Mujoco, MujocoModel } from "./load.ts";

/** Compiled when the first simulation takes it, freed when the last gives it back. Simulations only read it. */
export class SharedModel {
  readonly mujoco: Mujoco;
  readonly #xml: string;
  #model: MujocoModel | undefined;
  #numUsers = 0;

  constructor(mujoco: Mujoco, xml: string) {
    this.mujoco = mujoco;
    this.#xml = xml;
  }

  /** @throws UsageError for a model that MuJoCo cannot compile, or one without joints. */
  acquire(): MujocoModel {
    this.#model ??= this.#compile();
    this.#numUsers++;
    return this.#model;
  }

  release(): void {
    if (--this.#numUsers > 0) return;
    this.#model?.delete();
    this.#model = undefined;
  }

  #compile(): MujocoModel {
    let model: MujocoModel;
    try {
      model = this.mujoco.MjModel.from_xml_string(this.#xml);
    } catch (cause) {
      throw new UsageError(`option \`xml\`: expected an MJCF model, got ${String((cause as Error)?.message ?? cause).trim()}`, { cause });
    }
    if (model.nq === 0) {
      model.delete();
      throw new UsageError("option `xml`: expected a model with joints, got one without");
    }
    // MuJoCo would put a diverged simulation back to its start without a word; `Simulation.broken` reports it instead.
    model.opt.disableflags |= this.mujoco.mjtDisableBit.mjDSBL_AUTORESET.value;
    return model;
  }
}

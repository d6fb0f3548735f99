// The networks of a policy as pure functions over symbolic tensors. Letters: B states, F observation, L features, K action outputs.
import { elu, gelu, leakyRelu, relu, silu } from "../../tensor/activation.ts";
import { reshape } from "../../tensor/core.ts";
import { tanh } from "../../tensor/elementwise.ts";
import { scope, type Tensor } from "../../tensor/graph.ts";
import type { PolicyActivation, PolicyConfig } from "./config.ts";
import { dense } from "./dense.ts";
import type { ActorParameters, CriticParameters, DenseParameters, PolicyParameters } from "./parameters.ts";

const activations: Record<PolicyActivation, (x: Tensor) => Tensor> = {
  tanh,
  relu,
  elu: (x) => elu(x),
  leakyRelu: (x) => leakyRelu(x),
  gelu: (x) => gelu(x),
  silu,
};

export interface ActorOutput {
  /** [B, K] logits, or means of continuous actions before squashing. */
  outputs: Tensor;
  /** [B, L] features of the last hidden layer. */
  latent: Tensor;
  /** See {@link ActorParameters}. */
  logStd?: Tensor;
}

function stack(config: PolicyConfig, x: Tensor, layers: readonly DenseParameters<Tensor>[], name: string): Tensor {
  return layers.reduce(
    (hidden, { weight, bias }, i) => scope(x, `${name}.${i}`, () => activations[config.activation](dense(hidden, weight, bias))),
    x,
  );
}

/** [B, F] → what the shared layers make of it; the observations themselves without a trunk. */
const trunkForward = (config: PolicyConfig, trunk: readonly DenseParameters<Tensor>[], observations: Tensor): Tensor =>
  stack(config, observations, trunk, "trunk");

function actorFromTrunk(config: PolicyConfig, { layers, output, logStd }: ActorParameters<Tensor>, x: Tensor): ActorOutput {
  const latent = stack(config, x, layers, "actor");
  const outputs = scope(x, "actor.output", () => dense(latent, output.weight, output.bias));
  return { outputs, latent, ...(logStd ? { logStd } : {}) };
}

function criticFromTrunk(config: PolicyConfig, { layers, output }: CriticParameters<Tensor>, x: Tensor): Tensor {
  const hidden = stack(config, x, layers, "critic");
  const values = scope(x, "critic.output", () => dense(hidden, output.weight, output.bias));
  return reshape(values, [values.shape[0]]);
}

/** The policy network alone, for observations [B, F]. */
export const actorForward = (config: PolicyConfig, actor: ActorParameters<Tensor>, observations: Tensor): ActorOutput =>
  actorFromTrunk(config, actor, trunkForward(config, actor.trunk, observations));

/** Values [B] of observations [B, F]. */
export const criticForward = (
  config: PolicyConfig,
  { trunk, critic }: { trunk: readonly DenseParameters<Tensor>[]; critic: CriticParameters<Tensor> },
  observations: Tensor,
): Tensor => criticFromTrunk(config, critic, trunkForward(config, trunk, observations));

/** Both networks; a shared trunk is computed once. */
export function policyForward(
  config: PolicyConfig,
  { actor, critic }: PolicyParameters<Tensor>,
  observations: Tensor,
): ActorOutput & { values: Tensor } {
  const x = trunkForward(config, actor.trunk, observations);
  return { ...actorFromTrunk(config, actor, x), values: criticFromTrunk(config, critic, x) };
}

// Names of parameters in checkpoints: those of Stable-Baselines3's ActorCriticPolicy (torch layout [out, in]), so that weights move between
// the two. Activations stand between linear layers there, hence every second number.
import type { PolicyConfig } from "./config.ts";
import { layerWidths } from "./config.ts";

/** Name in a file → path in the tree of parameters. */
export function checkpointNames(config: PolicyConfig): ReadonlyMap<string, string> {
  const names = new Map<string, string>();
  const dense = (name: string, path: string): void => {
    for (const leaf of ["weight", "bias"]) names.set(`${name}.${leaf}`, `${path}.${leaf}`);
  };
  const { trunk, actor, critic } = layerWidths(config);
  if (config.head.kind === "gaussian" || config.head.kind === "gsde") names.set("log_std", "actor.logStd");
  for (const i of trunk.keys()) dense(`mlp_extractor.shared_net.${2 * i}`, `actor.trunk.${i}`);
  for (const i of actor.keys()) dense(`mlp_extractor.policy_net.${2 * i}`, `actor.layers.${i}`);
  for (const i of critic.keys()) dense(`mlp_extractor.value_net.${2 * i}`, `critic.layers.${i}`);
  dense("action_net", "actor.output");
  dense("value_net", "critic.output");
  return names;
}

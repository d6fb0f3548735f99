// Parameters, initialisation and layers.
export { causalBias, documentBias, masked } from "./attention/mask.ts";
export { type SoftmaxOptions, softmaxAttention } from "./attention/softmax.ts";
export {
  countParameters,
  decayGroup,
  type Initializer,
  initializeParameters,
  type ParameterPart,
  type ParameterSpec,
  type ParameterTree,
  parameter,
} from "./parameter.ts";
export { inverseFrequencies, type RotaryOptions, type RotaryTables, rotaryTables } from "./rotary.ts";

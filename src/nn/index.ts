// Parameters, initialisation and layers.
export { causalBias, documentBias, masked } from "./attention/mask.ts";
export { type SoftmaxOptions, softmaxAttention } from "./attention/softmax.ts";
export { blockFormat, isQuantised, type LinearParameters, type LinearWeight, linearLayer, type QuantisedWeight } from "./linear.ts";
export { type ExpertsEmission, type ExpertsOptions, type ExpertWeights, expertLayer } from "./moe/experts.ts";
export { balanceLoss, type Dispatch, dispatch, type RouterOptions, type Routing, route } from "./moe/router.ts";
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
export { type PackOptions, packQ4, packQ8, packStackQ8, unpack } from "./quantise.ts";
export { type ResidualNormOptions, residualNorm } from "./residual-norm.ts";
export {
  attentionFactorOf,
  dependsOnLength,
  inverseFrequencies,
  type RotaryOptions,
  type RotaryScaling,
  type RotaryTables,
  rotaryTables,
} from "./rotary.ts";

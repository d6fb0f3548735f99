// Complete pipelines, where training, reward and decoding meet.
export { type HeldOut, holdOut } from "./hold-out.ts";
export { copyTokenizer, resolveModel, tokenizerBeside } from "./model-source.ts";
export { type PretrainContext, pretrain } from "./pretrain.ts";
export { type PretrainOptions, pretrainSchema, savedSettings } from "./pretrain-options.ts";
export { quickstartOptions } from "./quickstart.ts";

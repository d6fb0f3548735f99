// Complete pipelines, where training, reward and decoding meet.
export { type PretrainContext, type PretrainOptions, pretrain, pretrainSchema } from "./pretrain.ts";
export { quickstartOptions } from "./quickstart.ts";

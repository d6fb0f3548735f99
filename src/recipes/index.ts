// Complete pipelines, where training, reward and decoding meet.

export { tourAlignOptions } from "./align-stories.ts";
export { openDrafter, resolveDrafter } from "./drafter-source.ts";
export { type GrpoContext, grpo } from "./grpo.ts";
export { type GrpoOptions, grpoSchema, type PromptRecord, savedGrpoSettings } from "./grpo-options.ts";
export { type HeldOut, holdOut } from "./hold-out.ts";
export { copyTokenizer, resolveModel, tokenizerBeside } from "./model-source.ts";
export { tokenise } from "./prepare-data.ts";
export { type PretrainContext, pretrain } from "./pretrain.ts";
export {
  locateRun,
  type PretrainOptions,
  type PretrainSettings,
  parseSavedSettings,
  pretrainSchema,
  savedSettings,
} from "./pretrain-options.ts";
export { quickstartOptions } from "./quickstart.ts";
export { type SelfDistillationOptions, type SelfDistilledText, selfDistil } from "./self-distillation.ts";
export type { SpeculationReport, TokenTreeReport } from "./speculation-report.ts";
export { storiesModel, type TourContext, type TourOptions, type TourPart, tour, tourParts, tourSchema } from "./tour.ts";
export { type TrainDrafterContext, trainDrafter } from "./train-drafter.ts";
export { savedDrafterSettings, type TrainDrafterOptions, tourAccelerateOptions, trainDrafterSchema } from "./train-drafter-options.ts";
